"""Hand-made curves for every diagnosis, and provoked problems in runs of a tiny network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Compose
from tiny_runs import CPU, colours, fit

from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.evaluation.diagnosis import Diagnosis, Setting, diagnose
from ftexp.evaluation.history import EpochRecord
from ftexp.training.guessing import reference_values

pytestmark = pytest.mark.usefixtures("no_pictures")

SETTING = Setting(metric="accuracy", num_val=400, chance_loss=math.log(4), start_loss=math.log(4), chance_accuracy=0.25)


def history(train: list[float], val: list[float], accuracy: list[float], moved: float = 0.5) -> list[EpochRecord]:
    return [
        EpochRecord("p", i + 1, t, v, {"accuracy": a, "macro_f1": a}, 1.0, moved, 1e-3, None, 1.0, 1.0, best=False)
        for i, (t, v, a) in enumerate(zip(train, val, accuracy, strict=True))
    ]


CURVES = {
    "working": history([1.2, 0.8, 0.5, 0.4], [1.1, 0.8, 0.6, 0.55], [0.5, 0.7, 0.8, 0.82]),
    "overfitting": history([1.2, 0.6, 0.3, 0.1, 0.05], [1.0, 0.6, 0.7, 0.8, 0.9], [0.6, 0.8, 0.79, 0.76, 0.75]),
    "diverging": history([1.4, 5.0, 9.0], [1.4, 6.0, 9.0], [0.3, 0.25, 0.25]),
    "erratic validation": history(
        [1.2, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.4], [1.0] * 8, [0.5, 0.6, 0.7, 0.8, 0.55, 0.8, 0.5, 0.8]
    ),
    "too early to say": history([1.2, 0.8], [1.1, 0.8], [0.5, 0.7]),
}


@pytest.mark.parametrize("signal", CURVES)
def test_each_signal_is_read_from_its_curve(signal: str) -> None:
    found = diagnose(CURVES[signal], SETTING)
    assert found.signal == signal
    assert (found.override is None) == (signal in ("working", "too early to say"))


def test_overfitting_says_since_when_and_by_how_much() -> None:
    sentence = diagnose(CURVES["overfitting"], SETTING).sentence
    assert "Since epoch 2 the validation loss rose from 0.600 to 0.900 and accuracy got worse by 0.050" in sentence


@pytest.mark.parametrize(
    ("curve", "reason", "override"),
    [
        (
            history([1.41, 1.40, 1.39], [1.41, 1.4, 1.4], [0.25, 0.25, 0.26], moved=0.001),
            "too low",
            "optimizer.head_lr=0.01",
        ),
        (history([1.40, 1.41, 1.40], [1.4] * 3, [0.25, 0.26, 0.25]), "frozen", "stage=full"),
        (history([1.4, 0.9, 0.4], [1.5, 1.8, 2.5], [0.25, 0.24, 0.26]), "labels may be wrong", "splits.csv"),
    ],
)
def test_not_learning_names_the_likely_cause(curve: list[EpochRecord], reason: str, override: str) -> None:
    found = diagnose(curve, SETTING)
    assert found.signal == "not learning"
    assert reason in found.sentence
    assert override in str(found.override)


def labelled(labels: str) -> list[Sample]:
    return [Sample(path=str(i), label=label) for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("overrides", "by_hand"),
    [
        (["loss.label_smoothing=0"], -0.75 * math.log(0.75) - 0.25 * math.log(0.25)),
        ([], -0.725 * math.log(0.725) - 0.275 * math.log(0.275)),  # shares smoothed by 0.1
        (["loss.class_weights=balanced", "loss.label_smoothing=0"], math.log(2)),
        (["data.sampler=balanced"], math.log(2)),
        (["loss=bce", "loss.label_smoothing=0"], -0.75 * math.log(0.75) - 0.25 * math.log(0.25)),
    ],
)
def test_chance_by_hand(configure: Compose, overrides: list[str], by_hand: float) -> None:
    setting = reference_values(configure(*overrides), labelled("aaab"), labelled("aabc"))
    assert setting.chance_loss == pytest.approx(by_hand)
    assert setting.start_loss == pytest.approx(math.log(2))
    assert (setting.num_val, setting.chance_accuracy) == (4, 0.5)


def hundred_classes(configure: Compose) -> Setting:
    """Guessing costs 0.056 with bce, and a network that knows nothing begins at 0.69."""
    config = configure("loss=bce", "loss.label_smoothing=0")
    setting = reference_values(config, labelled("".join(map(chr, range(100, 200))) * 4), labelled("a" * 400))
    return replace(setting, chance_accuracy=0.01)


@pytest.mark.parametrize("losses", [[0.10, 0.30, 0.50], [0.12, 0.06, 0.15], [0.30, 0.20, 1.20]])
def test_bce_that_rises_above_its_own_cost_of_guessing_diverges(configure: Compose, losses: list[float]) -> None:
    found = diagnose(history(losses, [4.0] * 3, [0.3] * 3), hundred_classes(configure))
    assert found.signal == "diverging"
    assert "guessing gives 0.056" in found.sentence


def test_bce_that_is_still_falling_towards_guessing_does_not_diverge(configure: Compose) -> None:
    found = diagnose(history([0.50, 0.20, 0.10], [4.0, 3.0, 2.0], [0.1, 0.2, 0.3]), hundred_classes(configure))
    assert found.signal == "working"


def test_few_validation_images_are_named_with_the_smallest_difference_they_show() -> None:
    found = diagnose(CURVES["working"], replace(SETTING, num_val=12))
    assert found.signal == "erratic validation"
    # 1.96 * sqrt(0.7733 * 0.2267 / 12) = 0.237, and sqrt(2) times that between two runs.
    assert "12 validation images give an accuracy of 0.77 an uncertainty of ±0.24; differences below 0.34" in (
        found.sentence
    )


TROUBLE = (*CPU, "train.batch_size=16", "stage.epochs=6")
HEALTHY_RATES = ("optimizer.head_lr=1e-2", "optimizer.backbone_lr=5e-3", "stage=full")


def dataset(seed: int = 1, num_val: int = 160) -> Splits:
    return Splits(colours(160, seed), colours(num_val, seed + 100), TestSplit(colours(8, 99)), ("b", "g", "r", "x"))


def diagnosis(configure: Compose, folder: Path, splits: Splits, *overrides: str) -> Diagnosis:
    config = configure(*TROUBLE, *overrides)
    try:
        history = fit(config, splits, folder).history
    finally:
        print((folder / "metrics.csv").read_text() if (folder / "metrics.csv").exists() else "")
    return diagnose(history, reference_values(config, splits.train, splits.val))


@pytest.mark.parametrize("seed", range(5))
def test_healthy_runs_get_no_advice(configure: Compose, tmp_path: Path, seed: int) -> None:
    found = diagnosis(configure, tmp_path, dataset(seed), *HEALTHY_RATES, f"runtime.seed={seed}")
    assert found.signal == "working", found


def test_shuffled_labels(configure: Compose, tmp_path: Path) -> None:
    splits, rng = dataset(), np.random.default_rng(0)
    for samples in (splits.train, splits.val):
        shuffled = rng.permutation([sample.label for sample in samples])
        samples[:] = [replace(s, label=str(label)) for s, label in zip(samples, shuffled, strict=True)]
    found = diagnosis(configure, tmp_path, splits, *HEALTHY_RATES)
    assert found.signal == "not learning"
    assert "labels" in found.sentence


def test_a_thousand_times_the_rate(configure: Compose, tmp_path: Path) -> None:
    rates = ("optimizer.head_lr=10", "optimizer.backbone_lr=5", "train.clip_norm=null")
    found = diagnosis(configure, tmp_path, dataset(), *HEALTHY_RATES, *rates)
    assert found.signal == "diverging"
    assert "too high" in found.sentence


def test_a_thousandth_of_the_rate(configure: Compose, tmp_path: Path) -> None:
    rates = ("optimizer.head_lr=1e-5", "optimizer.backbone_lr=5e-6")
    found = diagnosis(configure, tmp_path, dataset(), *HEALTHY_RATES, *rates)
    assert found.signal == "not learning"
    assert "too low" in found.sentence


def test_a_random_head_on_noise(configure: Compose, tmp_path: Path) -> None:
    splits, rng = dataset(), np.random.default_rng(0)
    for samples in (splits.train, splits.val):
        samples[:] = [replace(s, pixels=rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for s in samples]
    found = diagnosis(configure, tmp_path, splits, "stage=head")
    assert found.signal == "not learning"


def test_twelve_validation_images(configure: Compose, tmp_path: Path) -> None:
    found = diagnosis(configure, tmp_path, dataset(num_val=12), *HEALTHY_RATES)
    assert found.signal == "erratic validation"
    assert "12 validation images" in found.sentence
