"""What a phase trains on: how long it lives, how often it is sent, and what it may take of a device's memory."""

from __future__ import annotations

import builtins
import csv
import gc
import io
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import CommandLine, Compose, make_phase
from image_batches import photographs
from tiny_runs import fit
from torch.utils._python_dispatch import TorchDispatchMode

from ftexp.data import digests
from ftexp.data.augment.transforms import eval_transform
from ftexp.data.loading.kept_pixels import Pixels
from ftexp.data.samples import SPLITS
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.finetune.phases import Phase
from ftexp.machine.distributed import Ranks
from ftexp.machine.memory_budget import MemoryBudget
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.training.inputs import input_source
from ftexp.training.inputs.activation_batches import ActivationBatches, ActivationRows
from ftexp.training.inputs.batches import Batches, Inputs
from ftexp.training.inputs.input_source import InputSource
from ftexp.training.inputs.pixel_batches import PixelBatches

pytestmark = pytest.mark.usefixtures("no_pictures")

CLASSES = ("a", "b", "c", "d")


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    test = TestSplit(photographs(tmp_path, 4, seed=2))
    return Splits(photographs(tmp_path, 20), photographs(tmp_path, 8, seed=1), test, CLASSES)


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_garbage_collection")
@pytest.mark.parametrize("settings", [("runtime.cache=off",), ("runtime.cache=disk",), ("augment=light",)])
def test_nothing_that_a_phase_kept_outlives_it(
    configure: Compose, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    made: list[weakref.ref[object]] = []
    alive: list[int] = []
    for kind in (Pixels, ActivationRows):
        original = kind.__init__

        def remember(self: object, *args: object, original: object = original) -> None:
            made.append(weakref.ref(self))
            original(self, *args)  # type: ignore[operator]

        monkeypatch.setattr(kind, "__init__", remember)
    entered, for_phase = InputSource.__enter__, InputSource.for_phase
    handed_out: list[Inputs] = []

    def enter(self: InputSource) -> InputSource:
        alive.append(sum(reference() is not None for reference in made))
        return entered(self)

    def hold(self: InputSource, phase: Phase) -> Inputs:
        handed_out.append(for_phase(self, phase))
        return handed_out[-1]

    monkeypatch.setattr(InputSource, "__enter__", enter)
    monkeypatch.setattr(InputSource, "for_phase", hold)  # in the place of any variable that outlives the phase
    machine = ("runtime.device=cpu", "runtime.workers=0", f"runtime.cache_folder={tmp_path}/kept", "tracking=none")
    staged = ("stage=staged", "stage.epochs=1", "stage.gate=off", "train.wise_ft=[0.5]", "train.batch_size=8")
    result = fit(configure(*machine, *staged, *settings), splits, tmp_path)
    assert len(result.history) == 3
    assert len(made) >= 6, "each of three phases has some"
    assert alive == [0, 0, 0, 0], "at the beginning of three phases and of the scoring after them"
    assert not [reference for reference in made if reference() is not None]


class Transfers(TorchDispatchMode):
    """Counts what is sent from the CPU to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        if isinstance(result, torch.Tensor) and result.device.type == "meta":
            self.count += any(tensor.device.type == "cpu" and tensor.dim() > 0 for tensor in tensors)
        return result


def on_a_device(free: int = 2**30) -> Runtime:
    """Torch's device without memory, in the place of a GPU; the network is never called."""
    memory = MemoryBudget(lambda: free, 0.85, keeps=True)
    return Runtime(torch.device("meta"), "fp32", False, torch.channels_last, 0, memory=memory)


def transfers(batches: Batches, epoch: int) -> int:
    with Transfers() as sent:
        for _ in batches.epoch(epoch):
            pass
    return sent.count


def test_an_epoch_of_images_on_the_device_is_sent_at_once(
    configure: Compose, splits: Splits, network: Network, tmp_path: Path
) -> None:
    """The places of its images and its labels; a transfer in each step would wait for the step before."""
    counted = {}
    for size in (2, 4):
        config = configure(f"train.batch_size={size}", f"runtime.cache_folder={tmp_path}/kept", "runtime.cache=off")
        with InputSource(config, network, splits, on_a_device()) as source:
            inputs = source.for_phase(make_phase("stem", "body", "head"))
            for _ in range(2):  # in the first epoch, images come as they are decoded
                counted[size] = [transfers(inputs.train, 2), transfers(inputs.val, 0)]
    assert counted == {2: [2, 2], 4: [2, 2]}


def test_an_epoch_of_activations_on_the_device_is_sent_at_once(
    configure: Compose, splits: Splits, network: Network
) -> None:
    runtime = on_a_device()
    config = configure("train.batch_size=2", "runtime.cache=off")
    with InputSource(config, network, splits, runtime) as source:
        images = source.for_phase(make_phase("head")).train
        assert isinstance(images, PixelBatches)
        rows = ActivationRows(torch.zeros(20, 6), torch.tensor([0, 1]), lambda: None, runtime)
        assert rows.device.type == "meta"
        activations = SimpleNamespace(of_epoch=lambda _: rows)  # in the place of KeptActivations
        assert transfers(ActivationBatches(activations, images.sampler, runtime), 1) == 2  # type: ignore[arg-type]


def test_the_processes_of_a_host_share_its_cores_while_they_run_the_frozen_blocks(
    configure: Compose, splits: Splits, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Ranks, int]] = []

    def note(network: Network, first: str, phase: Phase, *images: Any) -> None:
        settings = [batches.sampler.settings for batches in images[:2]]
        seen.extend((each.ranks, each.batch_size) for each in settings)

    monkeypatch.setattr(input_source, "keep_prefix", note)
    runtime = Runtime(torch.device("cpu"), "fp32", False, torch.channels_last, 0, ranks=Ranks(5, 16, 1, 4))
    with InputSource(configure("runtime.cache=memory", "train.batch_size=32"), network, splits, runtime) as source:
        source._keep_prefix(make_phase("head"), *[eval_transform(network.preprocessing)] * 2)
    assert seen == [(Ranks(0, 1, 0, 4), 2)] * 2, "each sees all batches, of its part of 32, with a fourth of the cores"


def test_images_and_activations_of_a_phase_share_one_budget(
    configure: Compose, splits: Splits, network: Network, tmp_path: Path
) -> None:
    """20 training and 8 validation images of 8 x 8 take 3,840 and 1,536 bytes."""
    config = configure("train.batch_size=4", f"runtime.cache_folder={tmp_path}/kept", "runtime.cache=off")
    for free, expected in ((2 * 5376, [True, True]), (2 * 5375, [True, False]), (2 * 3839, [False, True])):
        runtime = on_a_device(free)
        for _ in range(2):  # the second phase has what the first one had
            with InputSource(config, network, splits, runtime) as source:
                inputs, on_device = source.for_phase(make_phase("stem", "body", "head")), []
                for batches in (inputs.train, inputs.val):
                    transfers(batches, 1)
                    on_device.append(transfers(batches, 2) == 2)
            assert on_device == expected


def test_views_take_room_in_turn_until_there_is_none() -> None:
    """Half of 2,000 bytes is two views of 480; the third stays in the file."""
    runtime = on_a_device(2000)
    views = [ActivationRows(torch.zeros(20, 6), torch.tensor([0, 1]), lambda: None, runtime) for _ in range(3)]
    assert [view.device.type for view in views] == ["meta", "meta", "cpu"]


def test_a_step_that_was_measured_leaves_less_to_keep(
    configure: Compose, splits: Splits, network: Network, tmp_path: Path
) -> None:
    config = configure("train.batch_size=4", f"runtime.cache_folder={tmp_path}/kept", "runtime.cache=off")
    runtime = on_a_device(10**5)
    runtime.memory.promise_step(0.85 * 10**5 - 3840)
    with InputSource(config, network, splits, runtime) as source:
        inputs = source.for_phase(make_phase("stem", "body", "head"))
        for batches, on_device in ((inputs.train, True), (inputs.val, False)):
            transfers(batches, 1)
            assert (transfers(batches, 2) == 2) == on_device


def test_every_file_is_read_once_for_its_name_and_decoded_thrice(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    """By the audit, and by the first epoch; all later phases, epochs and views have kept images and activations."""
    opened: Counter[str] = Counter()
    original = open

    def counting(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened[str(file)] += 1
        return original(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", counting)
    monkeypatch.setattr(io, "open", counting)
    monkeypatch.setattr(digests, "SETTLED_NS", -1)
    data = (
        "data=imagefolder",
        "data.root=pictures",
        "data.image_size=32",
        "audit.on_leak=warn",
        "audit.features=false",
    )
    model = ("model=timm", "model.name=test_resnet", "model.weights=null", "train.batch_size=4", "tracking=none")
    staged = (
        "stage=staged",
        "stage.epochs=2",
        "stage.gate=off",
        "augment=light",
        "augment.views=2",
        "hydra.run.dir=run",
    )
    ended = command_line(*data, *model, *staged, "audit.features=false", "hydra.run.dir=run")
    assert ended.returncode == 0, ended.stderr
    rows = list(csv.DictReader((pictures.parent / "run" / "splits.csv").read_text().splitlines()))
    counts = {split: {opened[row["path"]] for row in rows if row["split"] == split} for split in SPLITS}
    # Once for the name, once by the audit, once by training, and once as they are for their labels to be judged;
    # the test images once to be scored. Validation images that report.html shows are opened for that, too.
    assert (counts["train"], counts["test"]) == ({4}, {3})
    assert counts["val"] <= {3, 4}
