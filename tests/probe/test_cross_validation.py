"""Folds that no group crosses, heads that have not seen what they are scored on, and intervals over groups."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_features import clouds, copies, features_of
from scipy.special import softmax
from sklearn.linear_model import Ridge

from ftexp import progress_lines
from ftexp.errors import ConfigError
from ftexp.probe.cross_validation import cross_validate, draw_folds, group_intervals, pooled
from ftexp.probe.curve import learning_curve
from ftexp.probe.out_of_fold import fit_head
from ftexp.report.cross_validation_files import write_cross_validation


@pytest.mark.parametrize("size", [1, 4])
def test_folds_cut_by_class_and_never_through_a_group(size: int) -> None:
    whole = replace(clouds(60), groups=torch.arange(60) // size)
    folds = draw_folds(whole, 5, seed=0)
    assert sorted(np.concatenate(folds).tolist()) == list(range(60))
    of_group = {g: {i for i, fold in enumerate(folds) if g in whole.groups[fold]} for g in range(whole.num_groups)}
    assert all(len(seen) == 1 for seen in of_group.values())
    for fold in folds:
        assert np.bincount(whole.labels[fold], minlength=3).min() >= (4 if size == 1 else 2)
    again, other = draw_folds(whole, 5, seed=0), draw_folds(whole, 5, seed=1)
    assert [fold.tolist() for fold in again] == [fold.tolist() for fold in folds]
    assert [fold.tolist() for fold in other] != [fold.tolist() for fold in folds]


def test_a_copy_in_another_fold_would_tell_the_label_and_is_kept_out() -> None:
    together = copies(30)
    apart = replace(together, groups=torch.arange(60))
    assert pooled(list(cross_validate(together, 5, 1, 0, ["accuracy"]))).accuracy < 0.75
    assert pooled(list(cross_validate(apart, 5, 1, 0, ["accuracy"]))).accuracy > 0.85


def test_a_fold_is_scored_by_a_head_of_the_others() -> None:
    whole = clouds(40, distance=1.5)
    first = next(cross_validate(whole, 4, 1, 0, ["auroc"]))
    rest = np.setdiff1d(np.arange(40), first.rows)
    head = fit_head(whole.take(rest))
    values, labels = whole.values.double().numpy(), whole.labels.numpy()
    reference = Ridge(alpha=head.strength, tol=1e-12).fit(values[rest], np.eye(3)[labels[rest]])
    expected = softmax(reference.predict(values[first.rows]) / head.temperature, axis=1)
    assert first.scores.probabilities is not None
    np.testing.assert_allclose(first.scores.probabilities, expected, atol=1e-6)
    assert first.scores.labels.tolist() == labels[first.rows].tolist()


def test_repeats_draw_new_folds_of_all_samples() -> None:
    folds = list(cross_validate(clouds(30), 3, 2, 0, ["accuracy"]))
    assert [(one.repeat, one.fold) for one in folds] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert folds[0].rows.tolist() != folds[3].rows.tolist()
    assert pooled(folds).num_samples == 60


def test_folds_that_take_long_are_said_to(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """After each but the last, how long the others take; folds that take seconds say nothing."""
    caplog.set_level("INFO")
    list(cross_validate(clouds(30), 3, 2, 0, ["accuracy"]))
    assert not caplog.messages
    monkeypatch.setattr(progress_lines, "SECONDS_BETWEEN", 0)
    monkeypatch.setattr(progress_lines, "PART_BETWEEN", 0)
    list(cross_validate(clouds(30), 3, 2, 0, ["accuracy"]))
    said = [message for message in caplog.messages if message.startswith("folds")]
    assert len(said) == 5
    assert re.fullmatch(r"folds   trained and scored 1 of 6 heads; about \d+ s left", said[0])
    assert "head    tried strength 1 of at most 13 of a ridge head" in caplog.messages


def test_more_folds_than_a_class_has_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"probe.folds=11 is not possible: no class has more than 10 images"):
        draw_folds(clouds(30), 11, 0)


@pytest.mark.parametrize(
    ("size", "left", "hint"),
    [(6, 2, "chosen. Add images of other groups"), (4, 3, "chosen. Set more folds, or add images of other groups")],
)
def test_a_fold_without_which_one_group_is_left_is_refused(size: int, left: int, hint: str) -> None:
    whole = replace(clouds(12), groups=torch.arange(12) // size)
    message = rf"probe.folds=2 .* leave {left} independent images. Without .*{hint}"
    with pytest.raises(ConfigError, match=message):
        next(cross_validate(whole, 2, 1, 0, ["accuracy"]))


def test_a_fold_without_which_one_large_group_is_left_is_refused() -> None:
    groups = (torch.arange(240) - 119).clamp(min=0).tolist()  # one of 120, and 120 of one
    half = features_of(torch.zeros(240, 2), [0, 0, 1] * 80, groups)
    with pytest.raises(ConfigError, match=r"leave 121 independent images. Without one of the folds only one is left"):
        learning_curve(half, 2, 1, 0, "accuracy")


def test_logits_are_kept_only_for_metrics_that_need_them() -> None:
    for name, kept in (("accuracy", False), ("auroc", True)):
        (first, *_) = cross_validate(clouds(30), 3, 1, 0, ["log_loss", name])
        assert (first.scores.logits is not None) is kept


def test_intervals_resample_groups() -> None:
    whole = clouds(60, distance=1.0)
    scores = pooled(list(cross_validate(whole, 3, 1, 0, ["accuracy"])))
    alone = group_intervals(scores, np.arange(60), ["accuracy"], 0)["accuracy"]
    expected = 1.96 * np.sqrt(scores.accuracy * (1 - scores.accuracy) / 60)
    assert alone[1] - alone[0] == pytest.approx(2 * expected, rel=0.15)
    sorted_rows = np.argsort(scores.labels != scores.predictions, kind="stable")
    groups = np.empty(60, np.int64)
    groups[sorted_rows] = np.arange(60) // 6  # of each group, nearly all are right or all are wrong
    in_groups = group_intervals(scores, groups, ["accuracy"], 0)["accuracy"]
    assert in_groups[1] - in_groups[0] > 1.8 * (alone[1] - alone[0])


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"probe.folds=5 .* leave 4 independent images. Set fewer folds"):
        draw_folds(replace(clouds(12), groups=torch.arange(12) // 3), 5, seed=0)
    groups = torch.where(clouds(12).labels == 2, 99, torch.arange(12))
    with pytest.raises(ConfigError, match="All images of c in train and val are of one group"):
        draw_folds(replace(clouds(12), groups=torch.unique(groups, return_inverse=True)[1]), 2, seed=0)
    once = clouds(13).take(np.array([*range(0, 12, 3), *range(1, 12, 3), 2]))
    with pytest.raises(ConfigError, match=r"^c has one image in train and val, so a head of the other images cannot"):
        draw_folds(once, 2, seed=0)
    none = clouds(13).take(np.array([*range(0, 12, 3), *range(1, 12, 3)]))
    with pytest.raises(ConfigError, match=r"^No image of c is left, so a head of the other images cannot"):
        draw_folds(none, 2, seed=0)


@pytest.mark.usefixtures("no_pictures")
def test_the_intervals_that_are_written_are_over_groups(tmp_path: Path) -> None:
    whole = replace(clouds(60, distance=1.0), groups=torch.arange(60) // 6)
    folds = list(cross_validate(whole, 3, 1, 0, ["accuracy"]))
    write_cross_validation(tmp_path, whole, folds, ["accuracy"], seed=0)
    written = json.loads((tmp_path / "cross_validation.json").read_text())["metrics"]["accuracy"]
    groups = whole.groups.numpy()[np.concatenate([one.rows for one in folds])]
    expected = group_intervals(pooled(folds), groups, ["accuracy"], 0)["accuracy"]
    assert (written["low"], written["high"]) == pytest.approx(expected)
