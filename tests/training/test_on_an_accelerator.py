"""Runs on the pretended accelerator: between the first and the last step of an epoch nothing waits for the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Compose
from PIL import Image
from tiny_runs import colours, curve, fit, resumed, subfolder

from benchmarks.pretended.backend import pretended
from benchmarks.pretended.counts import Counts
from benchmarks.pretended.watch import watched
from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.errors import InterruptedRunError
from ftexp.evaluation.history import EpochRecord, Observer
from ftexp.machine.memory_budget import MemoryBudget

SETTINGS = ("runtime.device=pretended", "runtime.workers=0", "tracking=none", "train.batch_size=8", "stage.epochs=2")
AUGMENTED = ("augment.crop_scale=0.3", "augment.horizontal_flip=0.5", "augment.color_jitter=0.3", "augment.erasing=0.5")
RAND = ("augment=medium", "augment.policy=rand", *AUGMENTED)
FULL = ("stage=full", "augment=none")


def written(samples: list[Sample], folder: Path) -> list[Sample]:
    """The same images in files."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{sample.path.replace('/', '-')}.png" for sample in samples]
    for sample, path in zip(samples, paths, strict=True):
        assert sample.pixels is not None
        Image.fromarray(sample.pixels).save(path)
    return [replace(sample, path=str(path), pixels=None) for sample, path in zip(samples, paths, strict=True)]


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    train, val = (written(colours(count, seed), tmp_path / "images") for count, seed in ((24, 0), (16, 1)))
    return Splits(train, val, TestSplit([]), ("b", "g", "r", "x"))


@pytest.fixture
def counts() -> Iterator[Counts]:
    with pretended() as counted:
        yield counted


def slow(*values: object, id: str) -> object:
    return pytest.param(*values, id=id, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("settings", "copies"),  # copies from the host in each step of the first epoch, and of the second
    [
        pytest.param(FULL, (2, 0), id="images on the device"),
        pytest.param(("stage=full", "augment=light", *AUGMENTED), (6, 4), id="fresh views of images on the device"),
        pytest.param(("stage=partial",), (0, 0), id="activations on the device"),
        slow(("stage=head", "head.init=random"), (0, 0), id="activations before the head"),
        slow(("stage=partial", "augment=light", "augment.views=2"), (0, 0), id="views"),
        slow((*FULL, "augment.mixup=0.2", "augment.cutmix=1"), (2, 0), id="mixed images"),
        slow((*FULL, "runtime.pixels=off"), (2, 2), id="images decoded in every epoch"),
        slow((*FULL, "optimizer=sgd", "train.ema=0.9", "train.clip_norm=1"), (2, 0), id="average of weights"),
        slow((*FULL, "optimizer=lion", "train.l2_sp=0.1"), (2, 0), id="lion and L2-SP"),
        slow((*FULL, "optimizer=adan", "train.ema=0.9"), (2, 0), id="adan"),
        slow((*FULL, "loss=focal", "data.sampler=balanced"), (0, 0), id="focal loss"),
        slow((*FULL, "loss=bce"), (2, 0), id="binary cross-entropy"),
        slow((*FULL, "loss.class_weights=balanced"), (2, 0), id="weights of classes"),
        slow((*FULL, "bn_policy=eval", "runtime.channels_last=false"), (2, 0), id="channels first"),
    ],
)
def test_no_step_waits_for_the_device(
    configure: Compose,
    splits: Splits,
    counts: Counts,
    tmp_path: Path,
    settings: tuple[str, ...],
    copies: tuple[int, int],
) -> None:
    config = configure(*SETTINGS, *settings, f"runtime.cache_folder={tmp_path / 'cache'}")
    with watched(counts) as passes:
        fit(config, splits, tmp_path)
    assert [part.kind for part in passes] == ["train", "validation"] * 2
    assert [part.between.waits for part in passes] == [0] * 4, [part.lines for part in passes]
    assert [part.between.to_host for part in passes] == [0] * 4
    train = passes[::2]
    assert [part.between.to_device / (len(part.steps) - 1) for part in train] == list(copies)
    assert passes[3].between.to_device == (0 if "runtime.pixels=off" not in settings else 2)


@pytest.mark.slow
def test_the_operations_of_a_policy_are_drawn_and_applied_without_waiting(
    configure: Compose, splits: Splits, counts: Counts, tmp_path: Path
) -> None:
    config = configure(*SETTINGS, "stage=full", *RAND, f"runtime.cache_folder={tmp_path / 'cache'}")
    with watched(counts) as passes:
        fit(config, splits, tmp_path)
    assert [part.between.waits for part in passes] == [0] * 4, [part.lines for part in passes]


@pytest.mark.parametrize(
    ("settings", "copies"),
    [
        pytest.param(("stage=partial",), 1, id="activations in a file"),
        slow(FULL, 2, id="images in a file"),
        slow(("stage=full", *RAND[:1]), None, id="fresh views of images in a file"),
    ],
)
def test_what_does_not_fit_on_the_device_is_sent_without_waiting(
    configure: Compose,
    splits: Splits,
    counts: Counts,
    tmp_path: Path,
    settings: tuple[str, ...],
    copies: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MemoryBudget, "take", lambda *_: False)
    config = configure(*SETTINGS, *settings, f"runtime.cache_folder={tmp_path / 'cache'}")
    with watched(counts) as passes:
        fit(config, splits, tmp_path)
    assert [part.between.waits for part in passes] == [0] * 4, [part.lines for part in passes]
    assert copies is None or passes[2].between.to_device == copies * (len(passes[2].steps) - 1)


@pytest.mark.parametrize("stage", ["full", pytest.param("partial", marks=pytest.mark.slow)])
def test_training_is_that_of_the_cpu(
    configure: Compose, splits: Splits, counts: Counts, tmp_path: Path, stage: str
) -> None:
    """Dropout draws from the device's own generator, which the run seeds as it does that of the CPU."""
    curves = []
    for device in ("cpu", "pretended"):
        settings = (*SETTINGS, f"stage={stage}", f"runtime.device={device}", "runtime.cache=memory")
        curves.append(curve(fit(configure(*settings, "augment=none"), splits, subfolder(tmp_path, device))))
    assert [number for epoch in curves[1] for number in epoch] == pytest.approx(
        [number for epoch in curves[0] for number in epoch], rel=1e-3
    )


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(("stage=full", "augment=light"), id="full"),
        slow(("stage=staged", "stage.gate=off", "train.ema=0.9", "bn_policy=train"), id="staged"),
        slow(("stage=head", "loss.class_weights=balanced"), id="solved head"),
        slow(("stage=full", "augment.mixup=0.2", "loss=focal", "data.sampler=balanced"), id="mixed images"),
    ],
)
def test_a_device_like_apples_needs_no_float64_and_no_copies_that_do_not_wait(
    configure: Compose, splits: Splits, tmp_path: Path, settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout, whose numbers the CPU draws from the generator that augments, and the device does not."""
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, inputs: inputs)
    curves = []
    with pretended(like="mps"):
        for device in ("cpu", "pretended"):
            given = (*SETTINGS, *settings, f"runtime.device={device}", "runtime.cache=memory")
            curves.append(curve(fit(configure(*given), splits, subfolder(tmp_path, device))))
    assert [number for epoch in curves[1] for number in epoch] == pytest.approx(
        [number for epoch in curves[0] for number in epoch], rel=1e-3
    )


@pytest.mark.slow
def test_a_resumed_run_draws_what_the_whole_run_draws(
    configure: Compose, splits: Splits, counts: Counts, tmp_path: Path
) -> None:
    """Dropout needs the state of the device's generator, the optimizer its states on the device."""

    class StopAfterTheFirst(Observer):
        def __call__(self, record: EpochRecord) -> None:
            if record.epoch == 1:
                raise InterruptedRunError(2)

    config = configure(*SETTINGS, *FULL, "train.ema=0.9", f"runtime.cache_folder={tmp_path / 'cache'}")
    whole = curve(fit(config, splits, subfolder(tmp_path, "whole")))
    folder = subfolder(tmp_path, "cut")
    with pytest.raises(InterruptedRunError):
        fit(config, splits, folder, StopAfterTheFirst())
    assert curve(fit(resumed(config, folder), splits, folder)) == whole
