"""Nested subsets of whole groups, heads that have not seen what they are scored on, and how far a curve would move."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import scores_of
from made_features import clouds, copies

from ftexp import progress_lines
from ftexp.errors import DataError
from ftexp.probe import curve as curve_module
from ftexp.probe.cross_validation import cross_validate, pooled
from ftexp.probe.curve import LearningCurve, choose_shares, errors_of, learning_curve, nested_subsets


@pytest.mark.parametrize("size", [1, 4])
def test_subsets_are_nested_stratified_and_of_whole_groups(size: int) -> None:
    whole = replace(clouds(240), groups=torch.arange(240) // size)
    subsets = list(nested_subsets(whole, (0.1, 0.35, 1.0), seed=0))
    assert [len(rows) for rows in subsets] == [24, 84, 240]
    for smaller, larger in pairwise(subsets):
        assert larger[: len(smaller)].tolist() == smaller.tolist()
    for rows in subsets:
        groups = whole.groups[torch.from_numpy(rows)]
        assert (torch.bincount(groups)[groups] == size).all()
        counts = np.bincount(whole.labels[rows], minlength=3)
        assert counts.max() - counts.min() <= 2 * size
    assert next(nested_subsets(whole, (0.1,), seed=1)).tolist() != subsets[0].tolist()


def test_a_subset_has_two_groups_at_least() -> None:
    """Of one alone, no strength can be chosen by what a head has not seen."""
    whole = replace(clouds(60), groups=(torch.arange(60) - 48).clamp(min=0))  # the first has 49 of 60
    for seed in range(5):
        for rows in nested_subsets(whole, (0.01, 0.5, 1.0), seed):
            assert len(whole.groups[torch.from_numpy(rows)].unique()) >= 2


def test_the_last_size_is_the_cross_validation() -> None:
    whole = clouds(90, distance=1.5)
    curve = learning_curve(whole, 3, 2, 0, "auroc")
    expected = pooled(list(cross_validate(whole, 3, 2, 0, ["auroc"])))
    assert curve.sizes[-1] == 60
    assert curve.scores[-1].labels.tolist() == expected.labels.tolist()
    assert curve.scores[-1].predictions.tolist() == expected.predictions.tolist()
    assert curve.scores[-1].metric("auroc") == pytest.approx(expected.metric("auroc"))
    assert curve.sizes.tolist() == sorted(curve.sizes)
    assert curve.scores[0].accuracy < curve.scores[-1].accuracy
    assert np.bincount(curve.heads).tolist() == [30] * 6
    assert curve.num_images == 90


def test_a_long_curve_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(progress_lines, "SECONDS_BETWEEN", 0)
    monkeypatch.setattr(progress_lines, "PART_BETWEEN", 0)
    learning_curve(clouds(120), 3, 1, 0, "accuracy")
    said = [text.partition(";")[0] for text in caplog.messages if text.startswith("curve")]
    assert said == [f"curve   trained and scored the heads of {number} of 3 folds" for number in (1, 2)]


def test_a_copy_of_a_held_out_image_is_in_no_subset() -> None:
    together = copies(40)
    apart = replace(together, groups=torch.arange(80))
    assert learning_curve(together, 3, 1, 0, "accuracy").scores[-1].accuracy < 0.7
    assert learning_curve(apart, 3, 1, 0, "accuracy").scores[-1].accuracy > 0.85


def test_too_few_images_of_a_class_are_refused() -> None:
    scarce = clouds(99).take(np.flatnonzero((np.arange(99) % 3 != 1) | (np.arange(99) < 30)))
    with pytest.raises(DataError, match=r"have 10 independent images of b, and 11 of each class are needed with probe"):
        choose_shares(scarce, 5)
    assert choose_shares(clouds(33), 5) == pytest.approx([0.5**1.5, 0.5, 0.5**0.5, 1.0])


def curve_of(
    labels: list[int], predictions: list[list[int]], groups: list[int], heads: list[int], repeats: int = 1
) -> LearningCurve:
    scores = tuple(scores_of(labels, one, 2) for one in predictions)
    of_rows = np.arange(len(labels)) * repeats // len(labels)
    return LearningCurve(np.array([10.0, 20.0]), scores, np.array(groups), np.array(heads), of_rows, 25)


def test_errors_are_those_of_the_metric_and_of_every_class() -> None:
    curve = curve_of([0, 0, 0, 1, 1], [[1, 1, 0, 1, 0], [0, 0, 1, 1, 1]], [0, 1, 2, 3, 4], [0] * 5)
    whole, (first, second) = errors_of(curve, "accuracy", seed=0)
    assert whole.values.tolist() == pytest.approx([0.6, 0.2])
    assert first.values.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert second.values.tolist() == pytest.approx([0.5, 0])
    assert errors_of(curve, "log_loss", seed=0)[0].values.tolist() == [1.0, 1.0]  # a loss is an error as it is


def test_errors_of_a_resample_are_those_of_its_samples_without_a_confusion_matrix() -> None:
    rng = np.random.default_rng(0)
    labels, predictions, weights = rng.integers(0, 1000, 300), rng.integers(0, 1000, 300), rng.integers(0, 3, 300)
    predictions[:150] = labels[:150]
    scores = scores_of(labels.tolist(), predictions.tolist(), 1000).needed_for([])
    tracemalloc.start()
    (errors,) = curve_module._errors(scores, weights[:, None], "macro_f1")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    drawn = scores.take(np.repeat(np.arange(300), weights))
    assert errors[0] == pytest.approx(1 - drawn.metric("macro_f1"))
    with np.errstate(invalid="ignore"):
        expected = 1 - np.diagonal(drawn.confusion) / drawn.confusion.sum(axis=1)
    np.testing.assert_allclose(errors[1:], expected)
    assert peak < 1_000_000  # bytes; the matrix of 1,000 classes alone has 8 million


def test_resamples_are_of_groups_and_of_heads() -> None:
    rng = np.random.default_rng(0)
    labels = [0] * 400
    wrong = rng.integers(0, 2, 400).tolist()
    alone = errors_of(curve_of(labels, [wrong, wrong], list(range(400)), [0] * 400), "accuracy", 0)[0].draws
    assert alone[:, 0].std() == pytest.approx(0.5 / 20, rel=0.15)
    assert (alone[:, 0] == alone[:, 1]).all()  # the sizes share a resample
    by_ten = sorted(wrong)
    in_groups = errors_of(curve_of(labels, [by_ten] * 2, [i // 10 for i in range(400)], [0] * 400), "accuracy", 0)[0]
    assert in_groups.draws[:, 0].std() == pytest.approx(0.5 / 40**0.5, rel=0.15)
    of_heads = errors_of(curve_of(labels, [by_ten] * 2, list(range(400)), [i // 40 for i in range(400)]), "accuracy", 0)
    assert of_heads[0].draws[:, 0].std() == pytest.approx((0.25 / 10 + 0.25 / 400) ** 0.5, rel=0.15)


def test_a_single_set_is_scored_once() -> None:
    """Four repeats of 100 images: all together have half of the error of one."""
    wrong = np.random.default_rng(0).integers(0, 2, 400).tolist()
    errors = errors_of(curve_of([0] * 400, [wrong, [0] * 400], list(range(100)) * 4, [0] * 400, 4), "accuracy", 0)[0]
    assert errors.single[:, 0].std() == pytest.approx(0.5 / 10, rel=0.15)
    assert errors.draws[:, 0].std() == pytest.approx(0.5 / 20, rel=0.15)
