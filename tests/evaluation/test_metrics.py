from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk

from ftexp.errors import ConfigError, DataError
from ftexp.evaluation import metrics
from ftexp.evaluation.metrics import OF_COUNTS, OF_PROBABILITIES, OF_SAMPLES, ClassCounts
from ftexp.evaluation.scores import Scores
from ftexp.metric_names import METRICS, check_defined, recorded


def drawn(num_samples: int = 60, num_classes: int = 4, seed: int = 0) -> Scores:
    """Predictions that are better than chance, with ties among the probabilities; the last class never occurs."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(2, num_classes - 1), num_samples)
    logits = rng.normal(size=(num_samples, num_classes)).round(1)
    logits[np.arange(num_samples), labels] += 0.8
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = logits[np.arange(num_samples), labels]
    ranks = (logits > own[:, None]).sum(axis=1)
    losses = -np.log(probabilities[np.arange(num_samples), labels])
    return Scores(labels, logits.argmax(axis=1), ranks, losses, num_classes, logits.astype(np.float32))


EXPECTED = {
    "accuracy": lambda p: sk.accuracy_score(p.labels, p.predictions),
    "macro_f1": lambda p: sk.f1_score(p.labels, p.predictions, average="macro"),
    "balanced_accuracy": lambda p: sk.balanced_accuracy_score(p.labels, p.predictions),
    "cohen_kappa": lambda p: sk.cohen_kappa_score(p.labels, p.predictions),
    "matthews": lambda p: sk.matthews_corrcoef(p.labels, p.predictions),
    "log_loss": lambda p: sk.log_loss(p.labels, p.probabilities, labels=range(p.num_classes)),
    "auroc": lambda p: np.mean([sk.roc_auc_score(p.labels == k, p.probabilities[:, k]) for k in np.unique(p.labels)]),
    "average_precision": lambda p: np.mean(
        [sk.average_precision_score(p.labels == k, p.probabilities[:, k]) for k in np.unique(p.labels)]
    ),
}


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("num_classes", [2, 4, 7])
def test_a_metric_is_scikit_learns(name: str, num_classes: int) -> None:
    scores = drawn(num_classes=num_classes, seed=num_classes)
    assert scores.metric(name) == pytest.approx(EXPECTED[name](scores), abs=1e-6)


def test_sensitivity_is_on_scikit_learns_curve() -> None:
    for seed in range(5):
        scores = drawn(num_classes=2, seed=seed)
        false_positives, true_positives, _ = sk.roc_curve(scores.labels, scores.probabilities[:, 1])
        for percent in (90, 95, 99):
            highest = true_positives[false_positives <= 1 - percent / 100 + 1e-12].max()
            assert scores.metric(f"sensitivity_at_{percent}") == pytest.approx(highest)


def test_the_registry_and_the_functions_have_the_same_names() -> None:
    functions = {"counts": OF_COUNTS, "samples": OF_SAMPLES, "probabilities": OF_PROBABILITIES}
    for need, named in functions.items():
        assert set(named) == {name for name, metric in METRICS.items() if metric.needs == need}
    assert all(name == metric.name for name, metric in METRICS.items())


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_stays_in_its_range_and_rises_with_better_predictions(name: str) -> None:
    metric, guessed = METRICS[name], drawn(num_classes=2)
    labels = guessed.labels
    certain = np.where(labels[:, None] == np.arange(2), 0.999, 0.001).astype(np.float32)
    perfect = Scores(labels, labels, np.zeros_like(labels), np.full(len(labels), 1e-3), 2, np.log(certain))
    assert metric.low <= guessed.metric(name) <= metric.high
    if name != "top_5":  # of two classes it is always 1
        assert metric.gain(guessed.metric(name), perfect.metric(name)) > 0
        assert metric.is_better(perfect.metric(name), guessed.metric(name))
    if metric.maximize:
        assert perfect.metric(name) == pytest.approx(metric.high)


def test_top_5_by_hand() -> None:
    ranks = np.array([0, 4, 5, 9])
    times = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    assert metrics.top_5(ranks, np.zeros(4), times).tolist() == [0.5, 0.0]


def test_matthews_and_kappa_of_one_class_are_zero() -> None:
    counts = ClassCounts.of(np.array([[5, 0], [0, 0]]))
    assert metrics.matthews(counts) == metrics.cohen_kappa(counts) == 0.0


def test_macro_f1_by_hand() -> None:
    # Class 0: 3 hits, 1 missed, none wrongly claimed: 6/7. Class 1: 2 hits, 1 wrongly claimed: 4/5. Class 2 absent.
    confusion = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    assert metrics.macro_f1(ClassCounts.of(confusion)) == pytest.approx((6 / 7 + 4 / 5) / 2)


def test_sensitivity_at_a_specificity_by_hand() -> None:
    # Ten negatives with p = 0.0 to 0.9. At a specificity of 90 % one may lie above: the threshold is above 0.8, and of
    # the positives 0.85 and 0.95 are found, 0.75 and 0.1 are not. At 99 % none may: 0.95 alone is found.
    negatives, positives = np.arange(10) / 10, np.array([0.1, 0.75, 0.85, 0.95])
    labels = np.repeat([0, 1], [10, 4])
    p = np.concatenate([negatives, positives])
    probabilities = np.stack([1 - p, p], axis=1)
    once = np.ones((14, 1))
    assert metrics.sensitivity_at(0.90, labels, probabilities, once).tolist() == [0.5]
    assert metrics.sensitivity_at(0.99, labels, probabilities, once).tolist() == [0.25]


def test_metrics_that_need_two_classes_are_nan_with_one() -> None:
    probabilities = np.array([[0.2, 0.8], [0.6, 0.4]])
    labels = np.zeros(2, np.int64)
    once = np.ones((2, 1))
    assert math.isnan(metrics.auroc(labels, probabilities, once)[0])
    assert math.isnan(metrics.sensitivity_at(0.9, labels, probabilities, once)[0])


def test_taking_rows_takes_all_of_a_sample() -> None:
    scores = drawn()
    rows = np.array([3, 3, 0])
    taken = scores.take(rows)
    assert taken.confusion.sum() == 3
    assert taken.metric("log_loss") == pytest.approx(scores.losses[rows].mean())
    assert np.array_equal(taken.logits, scores.logits[rows])


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_of_resamples_is_that_of_their_samples_one_by_one(name: str) -> None:
    scores = drawn(num_classes=2 if METRICS[name].binary else 4)
    scores = replace(scores, logits=scores.logits.round())
    assert len(np.unique(scores.probabilities[:, 1])) < 60  # there are ties
    rng = np.random.default_rng(0)
    drawn_rows = [rng.integers(0, 60, 60) for _ in range(20)]
    drawn_rows.append(np.flatnonzero(scores.labels == 0))  # of one class alone, for which some are not defined
    drawn_rows.append(np.flatnonzero(scores.labels != 1))  # without one of the classes
    times = np.stack([np.bincount(rows, minlength=60) for rows in drawn_rows], axis=1)
    expected = [scores.take(rows).metric(name) for rows in drawn_rows]
    np.testing.assert_allclose(scores.resampled(name, times), expected, rtol=1e-12, atol=1e-12)


def test_many_samples_are_counted_exactly() -> None:
    """In float32, 2 ** 24 + 1 is 2 ** 24."""
    many = np.array([[2**24], [1]])
    assert metrics.sums_by(np.zeros(2, np.int64), 1, metrics.exact_floats(many)).tolist() == [[2**24 + 1]]
    assert metrics.exact_floats(many - 1).dtype == np.float32


def test_splits_are_scored_several_at_once() -> None:
    matrices = np.random.default_rng(0).integers(0, 9, (3, 4, 4))
    for name, function in OF_COUNTS.items():
        each = [float(function(ClassCounts.of(matrix))) for matrix in matrices]
        assert function(ClassCounts.of(matrices)).tolist() == each, name


def test_counts_are_those_of_the_confusion_matrix() -> None:
    scores = drawn(num_classes=7)
    counts, expected = scores.class_counts, ClassCounts.of(scores.confusion)
    for name in ("truth", "predicted", "hits"):
        assert getattr(counts, name).tolist() == getattr(expected, name).tolist(), name


@pytest.mark.parametrize(("name", "better", "worse"), [("accuracy", 0.6, 0.5), ("log_loss", 0.4, 0.5)])
def test_ties_keep_the_earlier_and_nan_never_wins(name: str, better: float, worse: float) -> None:
    metric = METRICS[name]
    assert metric.gain(worse, better) == pytest.approx(0.1)
    assert metric.is_better(better, worse)
    assert not metric.is_better(worse, better)
    assert not metric.is_better(better, better)
    assert metric.is_better(worse, None)
    assert not metric.is_better(math.nan, None)
    assert not metric.is_better(math.nan, worse)


def test_every_epoch_records_the_cheap_metrics_and_the_requested_ones() -> None:
    free = [name for name, metric in METRICS.items() if metric.needs == "counts"]
    assert recorded(["accuracy"], 3) == free
    assert recorded(["auroc", "accuracy"], 3) == [*free, "auroc"]
    assert recorded([], 6) == [*free, "top_5"]


def test_a_metric_that_the_data_does_not_define_is_refused() -> None:
    check_defined(["accuracy", "auroc", "sensitivity_at_95"], ["a", "b"], ["a", "b"])
    with pytest.raises(ConfigError, match=r"sensitivity_at_95 is defined for two classes, and the data has 3\. Choose"):
        check_defined(["sensitivity_at_95"], ["a", "b", "c"], ["a", "b"])
    with pytest.raises(DataError, match=r"auroc compares .* all 2 validation images are of b\. Choose another train"):
        check_defined(["auroc"], ["a", "b"], ["b", "b"])
