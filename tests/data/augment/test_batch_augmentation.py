"""Augmentation of whole batches beside torchvision's of single images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ftexp.config import AugmentConfig
from ftexp.data.augment.batch_augmentation import BatchAugmentation, Draw, draw_rectangle, largest_centre
from ftexp.preprocessing import Preprocessing

CPU = torch.device("cpu")
SIZE = 16
PREPROCESSING = Preprocessing(SIZE, 18, "bicubic", (0.5, 0.25, 0.5), (0.5, 0.5, 0.5))


def photographs(*shapes: tuple[int, int]) -> list[Tensor]:
    """Noise that no filter takes beyond 0 and 255, where Pillow cuts off between the two directions."""
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.integers(64, 192, (*shape, 3), np.uint8)) for shape in shapes]


def augmentation(augment: AugmentConfig, seed: int = 0) -> BatchAugmentation:
    return BatchAugmentation(PREPROCESSING, augment, seed, CPU)


def test_crops_are_those_of_pillow_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    images = photographs((30, 40), (24, 21), (50, 20))
    crops = [(2, 5, 20, 30), (0, 0, 24, 21), (7, 3, 9, 11)]
    drawn = [Draw(crop, number == 1, (1, 1, 1), None) for number, crop in enumerate(crops)]
    augment = augmentation(AugmentConfig(crop_scale=0.5))
    monkeypatch.setattr(augment, "_draw", lambda epoch, index, height, width: drawn[index])
    batch = augment(images, 1, [0, 1, 2])
    assert batch.shape == (3, 3, SIZE, SIZE)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for image, draw, made in zip(images, drawn, batch, strict=True):
        whole = functional.to_pil_image(image.permute(2, 0, 1))
        expected = functional.resized_crop(whole, *draw.crop, [SIZE, SIZE], v2.InterpolationMode.BICUBIC)
        expected = functional.horizontal_flip(expected) if draw.mirrored else expected
        difference = (functional.pil_to_tensor(expected).int() - made.int()).abs()
        # Pillow rounds between the two directions as well.
        assert difference.max() <= 2
        assert difference.float().mean() < 0.4


def test_what_is_drawn_follows_from_seed_epoch_and_index() -> None:
    images, augment = photographs((30, 40), (24, 21)), AugmentConfig(crop_scale=0.3, horizontal_flip=0.5, erasing=0.5)
    first = augmentation(augment)(images, 3, [7, 4])
    assert torch.equal(augmentation(augment)(images[::-1], 3, [4, 7]).flip(0), first)
    for other in (augmentation(augment)(images, 4, [7, 4]), augmentation(augment, seed=1)(images, 3, [7, 4])):
        assert not torch.equal(other, first)


def test_rectangles_have_the_distribution_of_torchvisions() -> None:
    rng, scale, ratio = np.random.default_rng(0), (0.3, 1.0), (3 / 4, 4 / 3)
    torch.manual_seed(0)
    image = torch.zeros(3, 60, 100)
    crop = v2.RandomResizedCrop(8, scale, ratio)
    theirs = np.array(
        [list(crop.make_params([image]).values()) for _ in range(2000)], float
    )  # top, left, height, width
    mine = np.array([draw_rectangle(rng, 60, 100, scale, ratio) or (0, 0, 0, 0) for _ in range(2000)], float)
    fitted = mine[mine[:, 2] > 0]
    assert len(fitted) > 1990
    # Means of 2000 draws: their standard errors are below 0.4 px.
    assert np.allclose(fitted.mean(axis=0), theirs.mean(axis=0), atol=1.6)
    assert np.allclose(fitted.std(axis=0), theirs.std(axis=0), atol=1.2)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(100, 10, (43, 0, 13, 10)), (10, 100, (0, 43, 10, 13)), (10, 12, (0, 0, 10, 12))],
)
def test_where_no_crop_fits_it_is_the_largest_in_the_middle(
    height: int, width: int, expected: tuple[int, int, int, int]
) -> None:
    assert largest_centre(height, width, (3 / 4, 4 / 3)) == expected


def test_a_rectangle_is_blanked_out_in_what_the_network_sees_as_zero() -> None:
    images = photographs(*[(SIZE, SIZE)] * 50)
    batch = augmentation(AugmentConfig(erasing=1.0))(images, 1, range(50)).float()
    untouched = torch.stack(images).permute(0, 3, 1, 2).float()
    blank = torch.tensor([128.0, 64.0, 128.0])[:, None, None]
    erased = (batch == blank).all(dim=1, keepdim=True)
    assert torch.equal(torch.where(erased, untouched, batch), untouched)
    shares = erased.float().mean(dim=(1, 2, 3))
    assert shares.min() > 0.02
    assert shares.max() < 0.4
    assert abs(shares.mean() - (0.02 + 0.33) / 2) < 0.05


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_a_policy_changes_the_crops_and_blanks_stay_on_top(policy: str) -> None:
    images = photographs(*[(SIZE, SIZE)] * 40)
    plain = AugmentConfig(erasing=1.0)
    expected = augmentation(plain)(images, 1, range(40))
    changed = augmentation(AugmentConfig(erasing=1.0, policy=policy))(images, 1, range(40))
    blank = torch.tensor([128, 64, 128], dtype=torch.uint8)[:, None, None]
    erased = (expected == blank).all(dim=1, keepdim=True).expand_as(expected)
    assert torch.equal(changed[erased], expected[erased])
    different = (changed != expected).flatten(1).any(dim=1).float().mean()
    assert different > 0.7, "of the operations few leave an image as it is"
    assert torch.equal(
        augmentation(AugmentConfig(erasing=1.0, policy=policy))(images[5:], 1, range(5, 40)), changed[5:]
    )


def test_filters_that_only_pillow_has_use_pillow() -> None:
    cpu, without_float64 = torch.device("cpu"), torch.device("mps")
    assert BatchAugmentation.supports(PREPROCESSING, cpu)
    assert not BatchAugmentation.supports(Preprocessing(8, 8, "lanczos", (0,) * 3, (1,) * 3), cpu)
    assert not BatchAugmentation.supports(PREPROCESSING, without_float64)


def test_no_images_are_a_batch_of_none() -> None:
    """A process has none of the last batch where it has fewer images than there are processes."""
    batch = augmentation(AugmentConfig(crop_scale=0.5, color_jitter=0.3, policy="rand"))([], 1, [])
    assert (batch.shape, batch.dtype) == ((0, 3, SIZE, SIZE), torch.uint8)
