from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_batches import batches_of
from PIL import Image

from ftexp.config import AugmentConfig
from ftexp.data.augment.transforms import eval_transform, train_transform
from ftexp.data.samples import Sample
from ftexp.preprocessing import Preprocessing
from ftexp.training.inputs.batches import SampledBatches
from ftexp.training.inputs.worker_batches import WorkerBatches

PREPROCESSING = Preprocessing(8, 8, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def in_memory(count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [Sample(str(i), "ab"[i % 2], pixels=rng.integers(0, 255, (10, 10, 3), np.uint8)) for i in range(count)]


def on_disk(folder: Path, count: int) -> list[Sample]:
    samples = in_memory(count)
    for sample in samples:
        Image.fromarray(sample.pixels).save(folder / f"{sample.path}.png")
    return [Sample(str(folder / f"{sample.path}.png"), sample.label) for sample in samples]


def augmented(samples: list[Sample], *, workers: int | str = 0, shuffle: bool = True, seed: int = 0) -> WorkerBatches:
    transform = train_transform(PREPROCESSING, AugmentConfig(crop_scale=0.3, horizontal_flip=0.5, color_jitter=0.4))
    batches = batches_of(samples, transform, workers=workers, shuffle=shuffle, seed=seed)
    assert isinstance(batches, WorkerBatches)
    return batches


def epoch_of(batches: SampledBatches, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*batches.epoch(epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_shapes_types_and_counts() -> None:
    batches = augmented(in_memory(10))
    images, labels = next(batches.epoch(0))
    assert (images.shape, images.dtype) == ((4, 3, 8, 8), torch.uint8)
    assert (labels.shape, labels.dtype) == ((4,), torch.int64)
    assert (batches.num_batches, batches.num_samples) == (3, 10)
    assert len(list(batches.epoch(0))) == 3


def test_unshuffled_keeps_the_order_and_the_labels() -> None:
    samples = in_memory(6)
    batches = batches_of(samples, eval_transform(PREPROCESSING))
    images, labels = epoch_of(batches, 5)
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
    expected = torch.stack([eval_transform(PREPROCESSING)(Image.fromarray(s.pixels)) for s in samples])
    assert torch.equal(images, expected)


def test_an_epoch_may_show_fewer_than_all() -> None:
    assert batches_of(in_memory(10), eval_transform(PREPROCESSING), num_images=8).num_batches == 2


def test_same_bits_for_any_number_of_workers(tmp_path: Path) -> None:
    samples = on_disk(tmp_path, 9)
    alone, two = augmented(samples, workers=0), augmented(samples, workers=2)
    for epoch in (1, 2):
        for mine, theirs in zip(epoch_of(alone, epoch), epoch_of(two, epoch), strict=True):
            assert torch.equal(mine, theirs)
    two.close()


def test_epoch_and_seed_change_order_and_augmentation() -> None:
    samples = in_memory(12)
    first = epoch_of(augmented(samples), 1)[0]
    assert torch.equal(epoch_of(augmented(samples), 1)[0], first)
    assert not torch.equal(epoch_of(augmented(samples), 2)[0], first)
    assert not torch.equal(epoch_of(augmented(samples, seed=1), 1)[0], first)
    still = augmented(samples, shuffle=False)
    assert not torch.equal(epoch_of(still, 1)[0], epoch_of(still, 2)[0]), "augmentation alone differs by epoch"


def test_every_sample_comes_once_per_epoch() -> None:
    samples = in_memory(11)
    images, _ = epoch_of(batches_of(samples, eval_transform(PREPROCESSING), shuffle=True, seed=3), 7)
    expected = {eval_transform(PREPROCESSING)(Image.fromarray(s.pixels)).numpy().tobytes() for s in samples}
    assert {image.numpy().tobytes() for image in images} == expected


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    epoch_of(augmented(in_memory(8)), 1)
    assert torch.equal(torch.rand(3), expected)


def test_workers_end_on_close(tmp_path: Path) -> None:
    batches = augmented(on_disk(tmp_path, 4), workers=1)
    epoch_of(batches, 1)
    process = batches._loader._iterator._workers[0]  # type: ignore[union-attr]
    assert process.is_alive()
    batches.close()
    process.join(10)
    assert not process.is_alive()
    with pytest.raises(AssertionError, match="closed"):
        next(batches.epoch(1))


def test_auto_needs_no_workers_for_images_in_memory() -> None:
    assert augmented(in_memory(400), workers="auto").num_workers == 0


def test_balanced_epochs_hold_every_class_equally_often() -> None:
    samples = [Sample(str(i), "a" if i < 18 else "b", pixels=np.full((4, 4, 3), i, np.uint8)) for i in range(21)]
    batches = batches_of(samples, eval_transform(PREPROCESSING), shuffle=True, balanced=True)
    first, second = epoch_of(batches, 1), epoch_of(batches, 2)
    assert sorted(torch.bincount(first[1]).tolist()) == [10, 11]
    values, times = first[0][:, 0, 0, 0].unique(return_counts=True)
    shown = dict(zip(values.tolist(), times.tolist(), strict=True))
    assert {shown[i] for i in (18, 19, 20)} <= {3, 4}, "the three samples of the small class, three or four times each"
    assert max(count for i, count in shown.items() if i < 18) == 1
    assert set(first[0][:, 0, 0, 0].tolist()) != set(second[0][:, 0, 0, 0].tolist())
