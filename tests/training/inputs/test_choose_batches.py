"""Which of the three ways to batches is taken, and the line that says why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Compose, make_phase
from image_batches import photographs
from tiny_runs import colours

from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.machine.memory_budget import MemoryBudget, no_budget
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.training.inputs.activation_batches import ActivationBatches
from ftexp.training.inputs.input_source import InputSource
from ftexp.training.inputs.pixel_batches import PixelBatches
from ftexp.training.inputs.worker_batches import WorkerBatches
from ftexp.training.mixing import MixedBatches

FULL, HEAD = ("stem", "body", "head"), ("head",)
ONE_BY_ONE = "decoding workers: decoded images are cached, and augmented one by one on the CPU"
IN_MEMORY = "decoding workers: the images are already in memory"
DECODED = "decoding workers: decoded images are not cached (runtime.pixels=off)"
ACTIVATIONS = "cached activations: the frozen blocks run once on every view of an image"
ON_DEVICE = "cached pixels: whole batches are augmented on the device"
PLAIN = "cached pixels: there is no augmentation"


Choose = Callable[..., tuple[list[type], list[str]]]


@pytest.fixture
def choose(configure: Compose, network: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Choose:
    """``choose(samples, learning, *settings)``: what is trained, validated and scored on, and what is said of it."""

    def chosen(
        samples: list[Sample], learning: tuple[str, ...], *settings: str, memory: MemoryBudget | None = None
    ) -> tuple[list[type], list[str]]:
        config = configure("stage=partial", "train.batch_size=4", f"runtime.cache_folder={tmp_path}/kept", *settings)
        runtime = Runtime(torch.device("cpu"), "fp32", False, torch.channels_last, 0, memory=memory or no_budget())
        runtime.place(network.module.eval())
        splits = Splits(samples, samples[:4], TestSplit(samples[:2]), ("a", "b", "g", "r", "x"))
        caplog.set_level(logging.INFO, logger="ftexp")
        with InputSource(config, network, splits, runtime) as source:
            inputs = source.for_phase(replace(make_phase(*learning), augment=config.augment))
            batches = inputs.train, inputs.val, source.for_scoring(samples)
        return [type(each) for each in batches], [line for line in caplog.messages if line.startswith("batches ")]

    return chosen


@pytest.mark.parametrize(
    ("learning", "settings", "train", "val", "line"),
    [
        (FULL, (), PixelBatches, PixelBatches, PLAIN),
        (FULL, ("augment=light",), WorkerBatches, PixelBatches, ONE_BY_ONE),
        (FULL, ("runtime.pixels=off",), WorkerBatches, WorkerBatches, DECODED),
        (HEAD, (), ActivationBatches, ActivationBatches, ACTIVATIONS),
        (HEAD, ("augment=light",), ActivationBatches, ActivationBatches, ACTIVATIONS),
        (HEAD, ("augment=light", "runtime.pixels=off"), ActivationBatches, ActivationBatches, ACTIVATIONS),
        (HEAD, ("augment=light", "augment.views=inf"), WorkerBatches, PixelBatches, ONE_BY_ONE),
        (HEAD, ("augment.mixup=0.2",), MixedBatches, PixelBatches, PLAIN),
        (HEAD, ("runtime.cache=off",), PixelBatches, PixelBatches, PLAIN),
    ],
)
def test_the_way_that_leaves_least_to_do_is_taken_and_said(
    choose: Choose,
    tmp_path: Path,
    learning: tuple[str, ...],
    settings: tuple[str, ...],
    train: type,
    val: type,
    line: str,
) -> None:
    found = choose(photographs(tmp_path, 8), learning, *settings)
    assert found == ([train, val, WorkerBatches], [f"batches {line}"])


def test_images_in_memory_are_not_kept_again(choose: Choose) -> None:
    assert choose(colours(8, seed=0), FULL) == ([WorkerBatches] * 3, [f"batches {IN_MEMORY}"])


@pytest.mark.parametrize(("views", "way", "line"), [("inf", PixelBatches, ON_DEVICE), ("2", WorkerBatches, ONE_BY_ONE)])
def test_a_device_with_room_augments_whole_batches_unless_views_come_again(
    choose: Choose, tmp_path: Path, views: str, way: type, line: str
) -> None:
    room = MemoryBudget(lambda: 2**20, 0.85, keeps=True)
    found = choose(photographs(tmp_path, 8), FULL, "augment=light", f"augment.views={views}", memory=room)
    assert found == ([way, PixelBatches, WorkerBatches], [f"batches {line}"])
