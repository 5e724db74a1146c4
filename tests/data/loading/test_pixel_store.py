"""Cached images equal decoded ones to the bit, and are decoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Compose
from image_batches import batches_of, photographs
from PIL import Image
from tiny_runs import curve, fit, subfolder

from ftexp.config import AugmentConfig
from ftexp.data.augment.batch_augmentation import BatchAugmentation
from ftexp.data.augment.transforms import ImageTransform, eval_transform, train_transform
from ftexp.data.digests import ContentDigests
from ftexp.data.loading import dataset, pixel_store
from ftexp.data.loading.pixel_store import PixelSource
from ftexp.data.loading.tensor_store import TensorStore
from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.machine import runtime
from ftexp.machine.memory_budget import MemoryBudget
from ftexp.preprocessing import Preprocessing
from ftexp.training.inputs import worker_batches
from ftexp.training.inputs.batches import SampledBatches

pytestmark = pytest.mark.usefixtures("no_pictures")

HALF = (0.5, 0.5, 0.5)
PREPROCESSING = Preprocessing(8, 10, "bicubic", HALF, HALF)
CROPS = AugmentConfig(crop_scale=0.5, horizontal_flip=0.5, color_jitter=0.3)


def source_of(samples: list[Sample], transform: ImageTransform, store: TensorStore) -> PixelSource:
    return PixelSource(samples, transform, store, ContentDigests())


def loader(
    samples: list[Sample], transform: ImageTransform, store: TensorStore | None, workers: int | str = 0
) -> SampledBatches:
    return batches_of(samples, transform, store, workers, shuffle=True)


def epochs(batches: SampledBatches) -> list[torch.Tensor]:
    images = []
    for epoch in (1, 2):
        images += [batch for pair in batches.epoch(epoch, start=epoch - 1) for batch in pair]
    return images


@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig(horizontal_flip=0.5), CROPS])
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_decoding_each_time(tmp_path: Path, augment: AugmentConfig, workers: int) -> None:
    samples, transform = photographs(tmp_path, 11), train_transform(PREPROCESSING, augment)
    kept = loader(samples, transform, TensorStore(tmp_path / "store", 1), workers)
    plain = loader(samples, transform, None)
    assert all(torch.equal(a, b) for a, b in zip(epochs(kept), epochs(plain), strict=True))
    kept.close()


def test_files_are_decoded_once_and_need_no_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, transform = photographs(tmp_path, 9), train_transform(PREPROCESSING, CROPS)
    monkeypatch.setattr(worker_batches, "MIN_FILES_FOR_WORKERS", 1)
    decoded: list[str] = []
    original = pixel_store.open_image

    def open_image(sample: Sample) -> Image.Image:
        decoded.append(sample.path)
        return original(sample)

    for module in (pixel_store, dataset):
        monkeypatch.setattr(module, "open_image", open_image)
    for _ in range(2):
        batches = loader(samples, transform, TensorStore(tmp_path / "store", 1), "auto")
        assert batches.num_workers > 0, "nothing is known before the first iteration"
        epochs(batches)
        assert batches.num_workers == 0
    assert sorted(decoded) == sorted(sample.path for sample in samples)


def test_crops_are_taken_from_the_whole_image_with_as_many_pixels_as_the_smallest_needs() -> None:
    """Crops of a quarter of the area have half the side: 16 px of the short side leave them the 8 px of the network."""
    prepare = train_transform(PREPROCESSING, AugmentConfig(crop_scale=0.25)).prepare
    assert prepare(Image.new("RGB", (60, 30))).size == (32, 16)
    assert prepare(Image.new("RGB", (40, 12))).size == (40, 12)


def test_another_image_or_size_or_decoder_is_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, store = photographs(tmp_path, 3), TensorStore(tmp_path / "store", 1)
    transform = eval_transform(PREPROCESSING)
    source_of(samples, transform, store).open()
    source_of(samples, train_transform(PREPROCESSING, AugmentConfig(horizontal_flip=0.5)), store).open()
    assert len(list((tmp_path / "store").glob("*.safetensors"))) == 1, "what comes before the mirror is the same"
    source_of(samples, eval_transform(PREPROCESSING.at(12)), store).open()
    Image.new("RGB", (20, 20)).save(samples[1].path)
    source_of(samples, transform, store).open()
    assert len(list((tmp_path / "store").glob("*.safetensors"))) == 3
    monkeypatch.setattr(pixel_store, "decoders", lambda: "pillow 0.0.1")
    source_of(samples, transform, store).open()
    assert len(list((tmp_path / "store").glob("*.safetensors"))) == 4


def test_images_that_do_not_fit_are_decoded_each_time_with_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples, transform = photographs(tmp_path, 9), eval_transform(PREPROCESSING)
    caplog.set_level("INFO", logger="ftexp")
    batches = loader(samples, transform, TensorStore(tmp_path / "store", 1000 / 2**30))
    assert all(
        torch.equal(a, b) for a, b in zip(epochs(batches), epochs(loader(samples, transform, None)), strict=True)
    )
    assert caplog.text.count("pixels  off: the decoded images would take") == 1
    assert not list((tmp_path / "store").glob("*.safetensors"))


def test_where_images_cannot_be_kept_they_are_decoded_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = photographs(tmp_path, 6)
    transform = eval_transform(PREPROCESSING)
    expected = epochs(loader(samples, transform, None))
    (tmp_path / "file").touch()
    batches = loader(samples, transform, TensorStore(tmp_path / "file", limit_gib=1))
    assert all(map(torch.equal, epochs(batches), expected))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ftexp.data.loading.tensor_file.TensorWriter.finish", full)
    batches = loader(samples, transform, TensorStore(tmp_path / "full", limit_gib=1))
    assert all(map(torch.equal, epochs(batches), expected))
    assert [message.partition(": ")[0] for message in caplog.messages] == ["cache   off"] * 2


def test_images_are_the_same_on_the_device_they_move_to(tmp_path: Path) -> None:
    samples, store = photographs(tmp_path, 5), TensorStore(tmp_path / "store", 1)
    pixels = source_of(samples, eval_transform(PREPROCESSING), store).open()
    assert pixels is not None
    assert pixels.num_bytes == 5 * 8 * 8 * 3
    (before,) = pixels.batches([[3, 1]])
    pixels.move(torch.device("cpu"))
    after = list(pixels.batches([[3, 1], [4]]))
    assert torch.equal(after[0], before)
    assert torch.equal(after[1], pixels.tensor(4).permute(2, 0, 1)[None])
    assert before.is_contiguous(memory_format=torch.channels_last)
    ragged = source_of(samples, train_transform(PREPROCESSING, CROPS), store).open()
    assert ragged is not None
    image = ragged.tensor(4).clone()
    ragged.move(torch.device("cpu"))
    assert torch.equal(ragged.tensor(4), image)


@pytest.mark.parametrize("augment", ["none", "light"])
def test_runs_with_and_without_kept_images_are_the_same(configure: Compose, tmp_path: Path, augment: str) -> None:
    train, val = photographs(tmp_path, 20), photographs(tmp_path, 8, seed=1)
    splits = Splits(train, val, TestSplit(photographs(tmp_path, 4, seed=2)), ("a", "b", "c", "d"))
    machine = ("runtime.device=cpu", f"runtime.cache_folder={tmp_path}/kept", "tracking=none")
    common = (*machine, f"augment={augment}", "train.batch_size=8", "stage=full", "stage.epochs=2")
    kept, plain = (
        fit(
            configure(
                *common, f"augment={augment}", f"runtime.pixels={pixels}", f"runtime.cache_folder={tmp_path}/kept"
            ),
            splits,
            subfolder(tmp_path, pixels),
        )
        for pixels in ("auto", "off")
    )
    assert curve(kept) == curve(plain)
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 2


def test_the_first_epoch_trains_while_it_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, transform = photographs(tmp_path, 11), eval_transform(PREPROCESSING)
    decoded: list[str] = []
    original = pixel_store.open_image

    def open_image(sample: Sample) -> Image.Image:
        decoded.append(sample.path)
        return original(sample)

    monkeypatch.setattr(pixel_store, "open_image", open_image)
    monkeypatch.setattr(pixel_store, "CHUNK", 1)
    batches = loader(samples, transform, TensorStore(tmp_path / "store", 1))
    plain = loader(samples, transform, None)
    passing = batches.epoch(0)
    first, _ = next(passing)
    assert len(decoded) <= 6, "four of the batch, one ahead, one under way"
    rest = [images for images, _ in passing]
    assert all(torch.equal(a, b) for a, (b, _) in zip([first, *rest], plain.epoch(0), strict=True))
    assert sorted(decoded) == sorted(sample.path for sample in samples)
    again = [images for images, _ in batches.epoch(0)]
    assert len(decoded) == 11, "the second epoch comes from what is kept"
    assert all(torch.equal(a, b) for a, b in zip(again, [first, *rest], strict=True))


def test_an_interrupted_first_epoch_caches_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    samples, transform = photographs(tmp_path, 11), eval_transform(PREPROCESSING)
    batches = loader(samples, transform, TensorStore(tmp_path / "store", 1))
    next(batches.epoch(0))
    whole = [images for images, _ in batches.epoch(0)]
    assert [len(images) for images in whole] == [4, 4, 3]
    (kept,) = (tmp_path / "store").glob("*.safetensors")
    others = loader(photographs(tmp_path, 9, seed=1), transform, TensorStore(tmp_path / "store", 1))
    next(others.epoch(0))
    others.close()
    assert [file for file in (tmp_path / "store").iterdir() if file.suffix != ".lock"] == [kept]


def test_an_interrupted_epoch_resumes_without_its_cache(tmp_path: Path) -> None:
    samples, transform = photographs(tmp_path, 11), eval_transform(PREPROCESSING)
    batches = loader(samples, transform, TensorStore(tmp_path / "store", 1))
    expected = [images for images, _ in loader(samples, transform, None).epoch(3)]
    rest = [images for images, _ in batches.epoch(3, start=1)]
    assert all(torch.equal(a, b) for a, b in zip(rest, expected[1:], strict=True))


def test_images_that_an_epoch_leaves_out_are_cached_too(tmp_path: Path) -> None:
    samples, transform, store = (
        photographs(tmp_path, 11),
        eval_transform(PREPROCESSING),
        TensorStore(tmp_path / "store", 1),
    )
    source = source_of(samples, transform, store)
    shown = list(source.first_pass([[7, 2], [9, 0]]))
    assert [len(images) for images in shown] == [2, 2]
    assert source.pixels is not None
    for index, sample in enumerate(samples):
        expected = np.asarray(transform.prepare(pixel_store.open_image(sample)))
        assert np.array_equal(source.pixels.tensor(index).numpy(), expected)
    again = source_of(samples, transform, store)
    assert again.is_kept
    (found,) = again.first_pass([[9]])
    assert np.array_equal(found[0], shown[1][0]), "as when another process was faster"


@pytest.mark.parametrize("augment", ["light", "medium"])
def test_where_there_is_room_on_a_device_views_are_made_there(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: str
) -> None:
    """The CPU as a device with room, for which it does not count by itself."""
    made: list[int] = []
    original = BatchAugmentation.__call__

    def make(self: BatchAugmentation, images: list[torch.Tensor], epoch: int, indices: list[int]) -> torch.Tensor:
        made.append(len(images))
        return original(self, images, epoch, indices)

    monkeypatch.setattr(BatchAugmentation, "__call__", make)
    monkeypatch.setattr(runtime, "budget_of", lambda *_: MemoryBudget(lambda: 2**21, 0.85, keeps=True))
    train, val = photographs(tmp_path, 20), photographs(tmp_path, 8, seed=1)
    splits = Splits(train, val, TestSplit(photographs(tmp_path, 4, seed=2)), ("a", "b", "c", "d"))
    settings = ["runtime.device=cpu", f"runtime.cache_folder={tmp_path}/kept", "tracking=none", "train.batch_size=8"]
    config = configure(*settings, f"augment={augment}", "stage=full", "stage.epochs=2")
    first, again = (fit(config, splits, subfolder(tmp_path, name)) for name in ("first", "again"))
    assert made == [8, 8, 4] * 4
    assert curve(first) == curve(again), "whether the images are decoded meanwhile or were kept before"
