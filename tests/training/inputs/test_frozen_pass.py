"""The pass of the frozen blocks: in pieces, interrupted, and shared by the processes of a run."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Barrier, Event, Lock, local
from typing import Any, TypeVar, cast

import pytest
import torch
from conftest import Compose, make_phase
from image_batches import photographs
from PIL import Image
from tiny_runs import SMALL, colours, curve, fit, fresh_network, subfolder
from torch import Tensor

from ftexp import progress_lines
from ftexp.config import AugmentConfig
from ftexp.data.augment.transforms import ImageTransform, Normalizer, eval_transform, train_transform
from ftexp.data.digests import ContentDigests
from ftexp.data.loading import dataset, pixel_store
from ftexp.data.loading.dataset import ImageDataset
from ftexp.data.loading.sampler import BatchSettings, EpochSampler
from ftexp.data.loading.tensor_file import Kept
from ftexp.data.loading.tensor_store import StoreError, TensorStore
from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.machine.device_kinds import KINDS
from ftexp.machine.distributed import ONE_PROCESS, Ranks
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.models.prefix import split
from ftexp.training.inputs import frozen_pass, pass_share, prefix_cache
from ftexp.training.inputs.activation_batches import ActivationBatches
from ftexp.training.inputs.batches import BatchContext
from ftexp.training.inputs.choose_batches import image_batches
from ftexp.training.inputs.frozen_pass import FrozenPass
from ftexp.training.inputs.input_source import InputSource

T = TypeVar("T")

GIB = 2.0**-10
CLASSES = {"b": 0, "g": 1, "r": 2, "x": 3}
AS_IT_IS, AT_RANDOM = AugmentConfig(), AugmentConfig(crop_scale=0.5, horizontal_flip=0.5)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_pass, "PIECE", 10)


@dataclass
class Blocks:
    """The frozen blocks of a tiny network in the place of an engine; count images, and stop where they are told."""

    stop_after: int = 10**6
    name: str = "eager"
    seen: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        network = fresh_network()
        network.module.eval()
        self.prefix, _ = split(network, "head")

    def open(self) -> Any:
        def forward(images: Tensor) -> Tensor:
            if sum(self.seen) >= self.stop_after:
                raise KeyboardInterrupt
            self.seen.append(len(images))
            return self.prefix(images)

        return forward


def passing(
    blocks: Blocks,
    samples: Sequence[Sample],
    folder: Path | None,
    augment: AugmentConfig = AS_IT_IS,
    ranks: Ranks = ONE_PROCESS,
    pixels: TensorStore | None = None,
    gib: float = GIB,
) -> FrozenPass:
    """A pass over samples in batches of four, so that a batch lies in two pieces of ten."""
    runtime = Runtime(torch.device("cpu"), "fp32", False, torch.channels_last, 0, ranks=ranks)
    preprocessing = fresh_network().preprocessing
    transform: ImageTransform = (
        train_transform(preprocessing, augment) if augment.changes_images else eval_transform(preprocessing)
    )
    context = BatchContext(runtime, Normalizer(preprocessing), ContentDigests(), pixels, TensorStore(folder, gib))
    settings = BatchSettings(4, seed=0, keep_pixels="disk" if pixels else "no")
    classes = CLASSES if samples[0].label in CLASSES else {"a": 0, "b": 1}
    images = image_batches(EpochSampler(samples, classes, settings), transform, context)
    random = "random" if augment.changes_images else ""
    return FrozenPass(blocks, "prefix", images, context, random)  # type: ignore[arg-type]


def interrupt(after: int, samples: Sequence[Sample], folder: Path, augment: AugmentConfig = AS_IT_IS) -> None:
    """Leave the pieces that are finished after so many images."""
    with pytest.raises(KeyboardInterrupt):
        passing(Blocks(stop_after=after), samples, folder, augment).kept(0)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("augment", [AS_IT_IS, AT_RANDOM], ids=["as it is", "random"])
@pytest.mark.parametrize("count", [11, 20, 44])
def test_pieces_give_what_one_pass_gives_under_the_same_name_and_leave_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, augment: AugmentConfig
) -> None:
    samples = colours(count, seed=1)
    for view in (0, 1):
        kept = passing(Blocks(), samples, tmp_path / "pieces", augment).kept(view)
        with monkeypatch.context() as patched:
            patched.setattr(frozen_pass, "PIECE", 1000)
            whole = passing(Blocks(), samples, tmp_path / "whole", augment).kept(view)
        assert torch.equal(kept.rows, whole.rows)
        assert torch.equal(kept.notes["layout"], whole.notes["layout"])
    assert names(tmp_path / "pieces") == names(tmp_path / "whole")


@pytest.mark.parametrize("augment", [AS_IT_IS, AT_RANDOM], ids=["as it is", "random"])
def test_an_interrupted_pass_goes_on_behind_its_last_piece(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, augment: AugmentConfig
) -> None:
    caplog.set_level(logging.INFO)
    samples = colours(44, seed=1)
    interrupt(28, samples, tmp_path / "kept", augment)
    rest = Blocks()
    kept = passing(rest, samples, tmp_path / "kept", augment).kept(0)
    assert sum(rest.seen) == 44 - 20, "20 images in two pieces were finished"
    assert "the activations of 20 images are there from a pass that was interrupted" in caplog.text
    whole = passing(Blocks(), samples, tmp_path / "whole", augment).kept(0)
    assert torch.equal(kept.rows, whole.rows)
    assert names(tmp_path / "kept") == names(tmp_path / "whole")


def test_another_image_or_order_changes_its_piece_alone(tmp_path: Path) -> None:
    samples = colours(40, seed=1)
    interrupt(36, samples, tmp_path)
    changed = [*samples[:12], samples[13], samples[12], *samples[14:]]
    again = Blocks()
    passing(again, changed, tmp_path).kept(0)
    assert sum(again.seen) == 12 + 12, "of batches 2 to 4, and 7 to 9"


def test_random_views_of_the_same_images_in_another_place_are_others(tmp_path: Path) -> None:
    samples = colours(44, seed=1)
    interrupt(20, samples, tmp_path, AT_RANDOM)
    moved, blocks = [*samples[10:20], *samples[:10], *samples[20:]], Blocks()
    passing(blocks, moved, tmp_path, AT_RANDOM).kept(0)
    assert sum(blocks.seen) == 44


def test_a_piece_that_another_run_keeps_in_the_meantime_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = colours(44, seed=1)
    interrupt(28, samples, tmp_path / "kept")
    monkeypatch.setattr(TensorStore, "holds", lambda *_: False)  # as it was when this run looked
    kept = passing(Blocks(), samples, tmp_path / "kept").kept(0)
    assert torch.equal(kept.rows, passing(Blocks(), samples, tmp_path / "whole").kept(0).rows)


def test_a_piece_that_is_damaged_when_the_pieces_are_joined_is_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = colours(44, seed=1)
    interrupt(36, samples, tmp_path / "kept")
    damaged = next((tmp_path / "kept").glob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    kept = passing(Blocks(), samples, tmp_path / "kept").kept(0)
    assert "is damaged" in caplog.text
    assert torch.equal(kept.rows, passing(Blocks(), samples, tmp_path / "whole").kept(0).rows)


def test_a_cache_that_just_has_room_for_the_whole_is_enough(tmp_path: Path) -> None:
    samples = colours(44, seed=1)
    whole = passing(Blocks(), samples, tmp_path / "plenty").kept(0)
    (file,) = (tmp_path / "plenty").glob("*.safetensors")
    # Two pieces and what is not written yet: a header of each file, and the notes.
    room = file.stat().st_size + 4096 + 20 * whole.rows[0].nbytes
    blocks = Blocks()
    kept = passing(blocks, samples, tmp_path / "tight", gib=room / 2**30).kept(0)
    assert torch.equal(kept.rows, whole.rows)
    with pytest.raises(StoreError):
        passing(Blocks(), samples, tmp_path / "full", gib=(whole.rows.nbytes - 1) / 2**30).kept(0)


def test_decoded_images_are_kept_as_without_pieces(tmp_path: Path) -> None:
    samples = photographs(tmp_path, 24)
    pixels = TensorStore(tmp_path / "pixels", 1)
    passing(Blocks(), samples, tmp_path / "kept", pixels=pixels).kept(0)
    assert len(list((tmp_path / "pixels").glob("*.safetensors"))) == 1


def test_without_a_folder_there_are_no_pieces(tmp_path: Path) -> None:
    samples = colours(44, seed=1)
    kept = passing(Blocks(), samples, None).kept(0)
    assert torch.equal(kept.rows, passing(Blocks(), samples, tmp_path).kept(0).rows)
    assert torch.equal(kept.rows, passing(Blocks(), samples, None).in_memory(0).rows)


def test_a_long_pass_says_how_long(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress_lines, "SECONDS_BETWEEN", 0)
    monkeypatch.setattr(progress_lines, "PART_BETWEEN", 0)
    passing(Blocks(), colours(44, seed=1), tmp_path).kept(0)
    assert re.search(r"cache   ran the frozen blocks on 4 of 44 images; about \d+ s left", caplog.text)
    assert "44 of 44" not in caplog.text
    passing(Blocks(), colours(44, seed=1), tmp_path, ranks=Ranks(0, 2, 0, 2)).in_memory(0)
    assert "ran the frozen blocks on 4 of 44 images of this process; about" in caplog.text


def test_where_sizes_are_prepared_every_process_runs_whole_batches_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of the pass is this process's own: the last one is padded to all four images, not to its part of them."""
    monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], prepares_sizes=True))
    blocks = Blocks()
    kept = passing(blocks, colours(9, seed=1), tmp_path, ranks=Ranks(1, 2, 1, 2)).in_memory(0)
    assert blocks.seen == [4, 4, 4]
    assert len(kept.rows) == 9


def test_a_curve_on_pieces_is_that_on_images(configure: Compose, tmp_path: Path) -> None:
    splits = Splits(colours(44, seed=1), colours(21, seed=2), TestSplit(colours(10, seed=3)), ("b", "g", "r", "x"))
    kept = ("runtime.cache=disk", f"runtime.cache_folder={tmp_path / 'kept'}")
    cached = fit(configure(*SMALL, "stage=partial", *kept), splits, subfolder(tmp_path, "cached"))
    plain = fit(configure(*SMALL, "stage=partial", "runtime.cache=off"), splits, subfolder(tmp_path, "plain"))
    assert curve(cached) == curve(plain)
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 2


class Together(Ranks):
    """Some processes, each in a thread of this one."""

    barrier: Barrier
    given: list[Any]

    @classmethod
    def of(cls, size: int, machines: int = 1) -> list[Together]:
        barrier, given, local_size = Barrier(size, timeout=60), [None] * size, size // machines
        every = [cls(rank, size, rank % local_size, local_size) for rank in range(size)]
        for one in every:
            object.__setattr__(one, "barrier", barrier)
            object.__setattr__(one, "given", given)
        return every

    def all_gather(self, value: T) -> list[T]:
        self.given[self.rank] = value
        self.barrier.wait()
        values = list(self.given)
        self.barrier.wait()
        return values

    def all_reduce_max(self, number: int) -> int:
        return max(self.all_gather(number))

    def broadcast(self, make: Callable[[], T]) -> T:
        return cast(T, self.all_gather(make() if self.is_main else None)[0])


def kept_by_all(passes: Sequence[FrozenPass], view: int = 0) -> list[Kept]:
    """What each process gets, in a thread of its own."""
    with ThreadPoolExecutor(len(passes)) as pool:
        return list(pool.map(lambda one: one.kept(view), passes))


@pytest.mark.parametrize("augment", [AS_IT_IS, AT_RANDOM], ids=["as it is", "random"])
def test_processes_of_a_host_share_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: AugmentConfig
) -> None:
    original, one_at_a_time = ImageDataset.__getitem__, Lock()

    def draw(self: ImageDataset, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        with one_at_a_time:  # threads share one global generator
            return original(self, key)

    monkeypatch.setattr(ImageDataset, "__getitem__", draw)
    samples, blocks = colours(44, seed=1), [Blocks() for _ in range(3)]
    processes = zip(blocks, Together.of(3), strict=True)
    kept = kept_by_all([passing(one, samples, tmp_path / "kept", augment, ranks) for one, ranks in processes], view=1)
    # Pieces 0, 1 to 2, 3 to 4, of ten images, in batches of four from the one in which they begin.
    assert [sum(one.seen) for one in blocks] == [12, 24, 16]
    whole = passing(Blocks(), samples, tmp_path / "whole", augment).kept(1)
    assert all(torch.equal(one.rows, whole.rows) for one in kept)
    assert names(tmp_path / "kept") == names(tmp_path / "whole")


def test_each_process_decodes_the_images_of_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, decoded = photographs(tmp_path, 44), []
    original = dataset.open_image

    def note(sample: Sample) -> Image.Image:
        decoded.append(sample.path)
        return original(sample)

    for module in (dataset, pixel_store):
        monkeypatch.setattr(module, "open_image", note)
    pixels = TensorStore(tmp_path / "pixels", 1)
    assert pixels.folder is not None

    def share(folder: str) -> None:
        kept_by_all([passing(Blocks(), samples, tmp_path / folder, ranks=of, pixels=pixels) for of in Together.of(2)])

    share("first")
    assert len(decoded) == 20 + 24, "pieces 0 to 1 and 2 to 4 begin with a batch"
    assert not pixels.folder.exists(), "none waits for another to decode all of them"
    passing(Blocks(), samples, tmp_path / "alone", pixels=pixels).kept(0)
    decoded.clear()
    share("second")
    assert decoded == [], "where they are kept, they are read"


def test_machines_with_one_folder_share_the_pieces(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    samples, blocks = colours(44, seed=1), [Blocks() for _ in range(4)]
    processes = zip(blocks, Together.of(4, machines=2), strict=True)
    kept = kept_by_all([passing(one, samples, tmp_path / "kept", ranks=ranks) for one, ranks in processes])
    # Pieces 0, 1, 2, 3 to 4, of ten images, in batches of four from the one in which they begin.
    assert [sum(one.seen) for one in blocks] == [12, 12, 12, 16]
    whole = passing(Blocks(), samples, tmp_path / "whole").kept(0)
    assert all(torch.equal(one.rows, whole.rows) for one in kept)
    assert names(tmp_path / "kept") == names(tmp_path / "whole"), "and nothing that showed that they see one folder"
    assert "the machines of this run" not in caplog.text


def test_machines_with_folders_of_their_own_run_a_pass_each_and_say_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    train, val, processes = colours(44, seed=1), colours(24, seed=2), Together.of(4, machines=2)
    blocks = [Blocks() for _ in processes]
    for samples in (train, val):
        kept = kept_by_all(
            [
                passing(one, samples, tmp_path / f"disk {ranks.rank // 2}", ranks=ranks)
                for one, ranks in zip(blocks, processes, strict=True)
            ]
        )
        whole = passing(Blocks(), samples, tmp_path / "whole").kept(0)
        assert all(torch.equal(one.rows, whole.rows) for one in kept)
    assert [sum(one.seen) for one in blocks] == 2 * [20 + 12, 24 + 16], "pieces 0 to 1 and 2 to 4; 0 and 1 to 2"
    said = f"the machines of this run do not share runtime.cache_folder={tmp_path / 'disk 0'}: each runs the frozen"
    assert said in caplog.text
    assert len({record.getMessage() for record in caplog.records if said in record.getMessage()}) == 1
    assert names(tmp_path / "disk 0") == names(tmp_path / "disk 1") == names(tmp_path / "whole")


def test_machines_whose_activations_are_others_run_a_pass_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As with other hardware or versions, on which the rounding depends."""
    caplog.set_level(logging.INFO)
    pass_share._say.cache_clear()
    samples, blocks = colours(44, seed=1), [Blocks(), Blocks(name="of another torch")]
    processes = zip(blocks, Together.of(2, machines=2), strict=True)
    kept_by_all([passing(one, samples, tmp_path, ranks=ranks) for one, ranks in processes])
    assert [sum(one.seen) for one in blocks] == [44, 44]
    assert "the machines of this run differ in hardware or versions: each runs the frozen blocks on all" in caplog.text


def test_machines_read_what_one_has_written_where_an_absent_file_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS does for up to a minute, unless the machine itself writes the file."""
    absent = local()
    exists, replace_file = Path.exists, os.replace

    def remembered(self: Path) -> bool:
        known = absent.__dict__.setdefault("files", set())
        if not exists(self):
            known.add(str(self))
        return str(self) not in known

    def renamed(source: Any, target: Any) -> None:
        replace_file(source, target)
        absent.__dict__.setdefault("files", set()).discard(str(target))

    monkeypatch.setattr(Path, "exists", remembered)
    monkeypatch.setattr(os, "replace", renamed)
    for count, expected in ((44, [20, 24]), (8, [8, 0])):  # in pieces, and in one
        blocks = [Blocks(), Blocks()]
        processes = zip(blocks, Together.of(2, machines=2), strict=True)
        kept_by_all([passing(one, colours(count, seed=1), tmp_path, ranks=ranks) for one, ranks in processes])
        assert [sum(one.seen) for one in blocks] == expected


def test_a_folder_that_cannot_be_used_is_not_shared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    passes = [passing(Blocks(), colours(44, seed=1), tmp_path / "file", ranks=of) for of in Together.of(2, machines=2)]
    with pytest.raises(StoreError, match="cannot be used"):
        kept_by_all(passes)
    assert "cache   off: " in caplog.text


def test_a_machine_that_has_the_activations_waits_for_one_that_has_not(tmp_path: Path) -> None:
    samples, blocks = colours(44, seed=1), [Blocks(), Blocks()]
    passing(Blocks(), samples, tmp_path / "one").kept(0)
    processes = zip(blocks, ("one", "other"), Together.of(2, machines=2), strict=True)
    kept = kept_by_all([passing(own, samples, tmp_path / folder, ranks=ranks) for own, folder, ranks in processes])
    assert [sum(of.seen) for of in blocks] == [0, 44]
    assert torch.equal(kept[0].rows, kept[1].rows)


def test_a_process_that_cannot_keep_its_share_does_not_leave_the_others_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, failed = colours(44, seed=1), Event()
    original = TensorStore.get

    def get(self: TensorStore, key: str, fill: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise StoreError("no room")
        return original(self, key, fill)

    monkeypatch.setattr(TensorStore, "get", get)
    kept = kept_by_all([passing(Blocks(), samples, tmp_path, ranks=ranks) for ranks in Together.of(2)])
    assert torch.equal(kept[0].rows, kept[1].rows)


def test_what_one_process_cannot_keep_none_keeps(tmp_path: Path) -> None:
    """Otherwise one would ask for it again in a later epoch, and wait for others that do not."""
    samples, (one, other) = colours(44, seed=1), Together.of(2)
    passes = [
        passing(Blocks(), samples, tmp_path / "kept", ranks=one),
        passing(Blocks(), samples, tmp_path / "full", ranks=other, gib=2.0**-20),
    ]

    def why(one: FrozenPass) -> str:
        with pytest.raises(StoreError) as raised:
            one.kept(0)
        return str(raised.value)

    with ThreadPoolExecutor(2) as pool:
        reasons = list(pool.map(why, passes))
    assert reasons[0] == "another process of this run cannot keep them"
    assert "runtime.cache_gib" in reasons[1]


@pytest.mark.parametrize("unkept", ["val", "train"])
def test_processes_agree_on_what_is_opened(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unkept: str
) -> None:
    splits = Splits(colours(44, seed=1), colours(6, seed=2), TestSplit(colours(10, seed=3)), ("b", "g", "r", "x"))
    opened: list[tuple[int, int]] = []
    sizes = {"val": 6, "train": 44}

    def kept(self: FrozenPass, view: int) -> Kept:
        ranks = self._context.runtime.ranks
        opened.append((ranks.rank, self._images.num_samples))
        if ranks.rank == 1 and self._images.num_samples == sizes[unkept]:
            raise StoreError("full")
        return self.in_memory(view)

    original, one_at_a_time = prefix_cache._cut, Lock()

    def cut(*args: Any) -> Any:
        with one_at_a_time:  # it looks whether a trial draws from the global generator, which threads share
            return original(*args)

    monkeypatch.setattr(prefix_cache, "_cut", cut)
    monkeypatch.setattr(FrozenPass, "kept", kept)
    config = configure(*SMALL, "stage=head", f"runtime.cache_folder={tmp_path / 'kept'}", "runtime.cache=disk")

    def open_phase(given: tuple[Ranks, Network]) -> bool:
        ranks, network = given
        network.module.eval()
        runtime = Runtime(torch.device("cpu"), "fp32", False, torch.channels_last, 0, ranks=ranks)
        with InputSource(config, network, splits, runtime) as source:
            return isinstance(source.for_phase(make_phase("head")).train, ActivationBatches)

    with ThreadPoolExecutor(2) as pool:
        processes = zip(Together.of(2), [fresh_network(), fresh_network()], strict=True)
        assert list(pool.map(open_phase, processes)) == [False, False]
    wanted = ["val"] if unkept == "val" else ["val", "train"]
    assert sorted(opened) == sorted((rank, sizes[name]) for rank in (0, 1) for name in wanted)
