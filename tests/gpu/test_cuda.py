"""Tests that need a GPU, the most telling first. ``-m slow`` runs those that can on the pretended accelerator, so that
they are known to be right before there is a GPU at hand; compiling has the CPU's compiler as its stand-in.
"""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CommandLine
from tiny_runs import subfolder
from torch._dynamo.utils import counters
from workplaces import curve, draw_noise

import ftexp
from ftexp.config import AugmentConfig
from ftexp.data.augment.batch_augmentation import BatchAugmentation
from ftexp.errors import DeviceError, InterruptedRunError
from ftexp.evaluation.history import EpochRecord, Observer
from ftexp.inference.run_evaluation import evaluate_on_split
from ftexp.machine.accelerator import available_bytes, empty_cache, limit_memory
from ftexp.preprocessing import Preprocessing
from ftexp.training.inputs.batches import Batches
from ftexp.training.loop import EpochStats, train_epoch
from ftexp.training.step import Step

# 40 training images of 64 px in four colours.
SETTINGS = (
    *("model=timm", "model.name=test_efficientnet", "model.weights=null", "data=imagefolder", "data.root=pictures"),
    *("data.image_size=64", "train.batch_size=16", "stage.epochs=3", "stage.gate=off", "head.solver=sgd"),
    *("audit.on_leak=off", "tracking=none", "runtime.workers=0", "optimizer.head_lr=0.01"),
)
PREPROCESSING = Preprocessing(64, 72, "bicubic", (0.5,) * 3, (0.5,) * 3)
CHANGES = {"crop_scale": 0.3, "horizontal_flip": 0.5, "color_jitter": 0.3, "erasing": 0.5}

CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
)
STAND_IN = pytest.param("pretended", marks=pytest.mark.slow)
CPU = pytest.param("cpu", marks=pytest.mark.slow)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the device, by which ``runtime.device`` takes it."""
    if request.param != "pretended":
        yield request.param
        return
    from benchmarks.pretended.backend import pretended  # torch before 2.15 lacks what it needs

    with pretended():
        yield "pretended"


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None) -> None:
    """The working folder has images."""
    draw_noise(tmp_path / "pictures", of_class=15)
    monkeypatch.chdir(tmp_path)


def losses(folder: Path) -> list[tuple[float, float]]:
    """Of training and validation, of each epoch."""
    epochs, _ = curve(folder)
    assert isinstance(epochs, list)
    return [(float(train), float(val)) for train, val in epochs]


def train(folder: str, device: str, *settings: str, **kwargs: Any) -> Path:
    given = (*SETTINGS, f"runtime.device={device}", f"runtime.cache_folder={folder}/cache", *settings)
    return ftexp.fine_tune(given, folder=folder, score_test=False, **kwargs).folder


class StopAfterTheFirst(Observer):
    def __call__(self, record: EpochRecord) -> None:
        if record.epoch == 1:
            raise InterruptedRunError(2)


@pytest.mark.parametrize("device", [CUDA, STAND_IN], indirect=True)
def test_a_run_learns_and_is_resumed_and_evaluated_to_the_last_bit(device: str, tmp_path: Path) -> None:
    settings = "stage=full", "augment=light", "train.ema=0.9", "runtime.deterministic=true"
    whole = train("whole", device, *settings)
    assert losses(whole)[-1][0] < losses(whole)[0][0]
    engine = json.loads((whole / "run.json").read_text())["engine"]
    assert (engine["device"], engine["memory_format"]) == (device, "contiguous_format"), "of a small run"
    with pytest.raises(InterruptedRunError):
        train("cut", device, *settings, observers=[StopAfterTheFirst()])
    given = (*SETTINGS, f"runtime.device={device}", "runtime.cache_folder=cut/cache", *settings)
    ftexp.fine_tune(given, folder="cut", resume=True, score_test=False)
    assert losses(tmp_path / "cut") == losses(whole)
    evaluated = evaluate_on_split("whole", "val", (), None, None)
    assert evaluated.reproduced is not None
    assert (evaluated.reproduced.exact, evaluated.reproduced.differences) == (True, ())


@pytest.mark.parametrize("device", [CUDA, STAND_IN], indirect=True)
@pytest.mark.parametrize(
    "settings",
    [
        ("stage=full", "augment=medium", "runtime.channels_last=true"),
        ("stage=full", "augment=light", "augment.mixup=0.2"),
        ("stage=partial", "augment=none"),
        ("stage=lora", "stage.rank=2", "augment=none", "runtime.pixels=off", "runtime.workers=2"),
    ],
    ids=["policy", "mixed", "activations", "decoded by processes"],
)
def test_steps_do_not_wait_for_the_device(
    device: str, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    """Processes that decode are started when the device is in use."""
    waits: dict[int, int] = {}  # in the last epoch, by its number of batches

    def counted(step: Step, batches: Batches, *args: Any, **kwargs: Any) -> EpochStats:
        with waits_of(device) as counted:
            stats = train_epoch(step, batches, *args, **kwargs)
        waits[batches.num_batches] = counted()
        return stats

    monkeypatch.setattr("ftexp.training.phase_loop.train_epoch", counted)
    for batch_size in (20, 4):
        train(str(batch_size), device, *settings, f"train.batch_size={batch_size}", "runtime.compile=false")
    few, many = sorted(waits)
    assert waits[many] == waits[few] > 0, "the end of an epoch waits, its steps do not"


@contextmanager
def waits_of(device: str) -> Iterator[Callable[[], int]]:
    """Yields how often the host has waited for the device within the ``with``, to be asked after it."""
    if device != "cuda":
        from benchmarks.pretended.counts import COUNTS

        before = COUNTS.now().waits
        yield lambda: COUNTS.now().waits - before
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lambda: sum("synchronizing" in str(warning.message) for warning in caught)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", [CUDA], indirect=True)
def test_memory_that_runs_out_is_explained_and_an_automatic_batch_fits(device: str) -> None:
    gpu = torch.device(device, 0)
    empty_cache(gpu)
    free, total = torch.cuda.mem_get_info(gpu)
    settings = "stage=full", "augment=none", "data.image_size=512"
    taken = torch.cuda.memory_reserved(gpu)
    limit_memory(gpu, (taken + 2**28) / total)
    try:
        assert available_bytes(gpu) <= min(free, 2**28 + taken)
        with pytest.raises(
            DeviceError, match=r"Out of memory on cuda:0 with train\.batch_size=40.*batch_size=20 train"
        ):
            train("too_large", device, *settings, "train.batch_size=40")
        gc.collect()  # what the error held
        empty_cache(gpu)
        folder = train("auto", device, *settings, "train.batch_size=auto")
    finally:
        limit_memory(gpu, 1.0)
    assert losses(folder)


@pytest.mark.parametrize("device", [CUDA, STAND_IN], indirect=True)
def test_the_other_commands_run_there(device: str, command_line: CommandLine) -> None:
    on_device = *SETTINGS, f"runtime.device={device}", "stage=full", "augment=none"
    calls = (
        (*on_device, "hydra.run.dir=run"),
        ("predict", "run", "pictures", "--device", device),
        ("lr_find", *on_device, "hydra.run.dir=rates"),
        ("cross_validate", *on_device, "hydra.run.dir=folds"),
    )
    for call in calls:
        ended = command_line(*call)
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("device", "stage", "mode"),
    [
        pytest.param(*device.values, stage, mode, marks=device.marks, id=f"{device.values[0]}-{stage}-{mode}")
        for stage, mode, devices in (
            ("full", "reduce-overhead", [CUDA]),
            ("partial", "reduce-overhead", [CUDA]),
            ("full", "default", [CUDA]),
            ("partial", "default", [CPU]),
            ("head", "default", [CUDA, CPU]),
        )
        for device in devices
    ],
    indirect=["device"],
)
def test_a_compiled_run_has_two_graphs_and_the_curve_of_eager_code(
    device: str, caplog: pytest.LogCaptureFixture, tmp_path: Path, stage: str, mode: str
) -> None:
    settings = f"stage={stage}", "augment=none", "train.batch_size=16", f"runtime.compile_mode={mode}"
    subfolder(tmp_path, "runs")
    eager = train("runs/eager", device, *settings, "runtime.compile=false")
    counters.clear()
    compiled = train("runs/compiled", device, *settings, "runtime.compile=true")
    assert "continuing in eager mode" not in caplog.text
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    assert np.array(losses(compiled)) == pytest.approx(np.array(losses(eager)), rel=0.02), "bf16 on a GPU"


@pytest.mark.parametrize("device", [CUDA, STAND_IN], indirect=True)
def test_views_made_on_the_device_are_those_of_the_cpu_and_are_made_without_waiting(device: str) -> None:
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 256, (height, 90, 3), np.uint8)) for height in (70, 90, 120)]
    for augment in (AugmentConfig(**CHANGES), AugmentConfig(**CHANGES, policy="rand")):
        here, there = (BatchAugmentation(PREPROCESSING, augment, 0, torch.device(name)) for name in ("cpu", device))
        expected = here(images, 1, [0, 1, 2])
        on_device = [image.to(device) for image in images]
        for given in (images, on_device):
            difference = (there(given, 1, [0, 1, 2]).cpu().int() - expected.int()).abs()
            assert difference.max() <= 2 or augment.policy, "the device multiplies in TF32"
        with waits_of(device) as waits:
            made = [there(on_device, epoch, [0, 1, 2]) for epoch in range(5)]
        assert waits() == 0
        assert {tuple(batch.shape) for batch in made} == {(3, 3, 64, 64)}
