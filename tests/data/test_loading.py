from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ftexp.config import AugmentConfig
from ftexp.data.loading import Loader, make_loader
from ftexp.data.samples import Sample
from ftexp.data.transforms import eval_transform, train_transform
from ftexp.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLASSES = {"a": 0, "b": 1}


def in_memory(count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [Sample(str(i), "ab"[i % 2], pixels=rng.integers(0, 255, (10, 10, 3), np.uint8)) for i in range(count)]


def on_disk(folder: Path, count: int) -> list[Sample]:
    samples = in_memory(count)
    for sample in samples:
        Image.fromarray(sample.pixels).save(folder / f"{sample.path}.png")
    return [Sample(str(folder / f"{sample.path}.png"), sample.label) for sample in samples]


def loader(samples: list[Sample], *, workers: int | str = 0, shuffle: bool = True, seed: int = 0) -> Loader:
    transform = train_transform(PREPROCESSING, AugmentConfig(crop_scale=0.3, horizontal_flip=0.5, color_jitter=0.4))
    options = {"shuffle": shuffle, "seed": seed, "workers": workers, "pin_memory": False}
    return make_loader(samples, CLASSES, transform, 4, **options)


def epoch_of(batches: Loader, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    batches.set_epoch(epoch)
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_shapes_types_and_counts() -> None:
    batches = loader(in_memory(10))
    images, labels = next(iter(batches))
    assert (images.shape, images.dtype) == ((4, 3, 8, 8), torch.uint8)
    assert (labels.shape, labels.dtype) == ((4,), torch.int64)
    assert (len(batches), batches.num_samples) == (3, 10)
    assert len(list(batches)) == 3


def test_unshuffled_keeps_the_order_and_the_labels() -> None:
    samples = in_memory(6)
    fixed = {"shuffle": False, "seed": 0, "workers": 0, "pin_memory": False}
    batches = make_loader(samples, CLASSES, eval_transform(PREPROCESSING), 4, **fixed)
    images, labels = epoch_of(batches, 5)
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
    expected = torch.stack([eval_transform(PREPROCESSING)(Image.fromarray(s.pixels)) for s in samples])
    assert torch.equal(images, expected)


def test_an_epoch_may_show_fewer_than_all() -> None:
    fixed = {"shuffle": False, "seed": 0, "workers": 0, "pin_memory": False, "num_images": 8}
    assert len(make_loader(in_memory(10), CLASSES, eval_transform(PREPROCESSING), 4, **fixed)) == 2


def test_same_bits_for_any_number_of_workers(tmp_path: Path) -> None:
    samples = on_disk(tmp_path, 9)
    alone, two = loader(samples, workers=0), loader(samples, workers=2)
    for epoch in (1, 2):
        for mine, theirs in zip(epoch_of(alone, epoch), epoch_of(two, epoch), strict=True):
            assert torch.equal(mine, theirs)
    two.close()


def test_epoch_and_seed_change_order_and_augmentation() -> None:
    samples = in_memory(12)
    first = epoch_of(loader(samples), 1)[0]
    assert torch.equal(epoch_of(loader(samples), 1)[0], first)
    assert not torch.equal(epoch_of(loader(samples), 2)[0], first)
    assert not torch.equal(epoch_of(loader(samples, seed=1), 1)[0], first)
    still = loader(samples, shuffle=False)
    assert not torch.equal(epoch_of(still, 1)[0], epoch_of(still, 2)[0]), "augmentation alone differs by epoch"


def test_every_sample_comes_once_per_epoch() -> None:
    samples = in_memory(11)
    fixed = {"shuffle": True, "seed": 3, "workers": 0, "pin_memory": False}
    images, _ = epoch_of(make_loader(samples, CLASSES, eval_transform(PREPROCESSING), 4, **fixed), 7)
    expected = {eval_transform(PREPROCESSING)(Image.fromarray(s.pixels)).numpy().tobytes() for s in samples}
    assert {image.numpy().tobytes() for image in images} == expected


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    epoch_of(loader(in_memory(8)), 1)
    assert torch.equal(torch.rand(3), expected)


def test_workers_end_on_close(tmp_path: Path) -> None:
    batches = loader(on_disk(tmp_path, 4), workers=1)
    epoch_of(batches, 1)
    process = batches._batches._iterator._workers[0]  # type: ignore[union-attr]
    assert process.is_alive()
    batches.close()
    process.join(10)
    assert not process.is_alive()
    with pytest.raises(AssertionError, match="closed"):
        iter(batches)


def test_auto_needs_no_workers_for_images_in_memory() -> None:
    assert loader(in_memory(400), workers="auto").num_workers == 0


def test_balanced_epochs_hold_every_class_equally_often() -> None:
    samples = [Sample(str(i), "a" if i < 18 else "b", pixels=np.full((4, 4, 3), i, np.uint8)) for i in range(21)]
    fixed = {"shuffle": True, "seed": 0, "workers": 0, "pin_memory": False, "balanced": True}
    batches = make_loader(samples, CLASSES, eval_transform(PREPROCESSING), 4, **fixed)
    first, second = epoch_of(batches, 1), epoch_of(batches, 2)
    assert sorted(torch.bincount(first[1]).tolist()) == [10, 11]
    values, times = first[0][:, 0, 0, 0].unique(return_counts=True)
    shown = dict(zip(values.tolist(), times.tolist(), strict=True))
    assert {shown[i] for i in (18, 19, 20)} <= {3, 4}, "the three samples of the small class, three or four times each"
    assert max(count for i, count in shown.items() if i < 18) == 1
    assert set(first[0][:, 0, 0, 0].tolist()) != set(second[0][:, 0, 0, 0].tolist())
