"""TrivialAugment and RandAugment of whole batches beside torchvision's of single images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ftexp.data.augment.batch_policies import Operation, Policy

SIZE = 32
BLANK = torch.tensor([120.0, 110.0, 100.0])
SPACE = {name: make(31, SIZE, SIZE) for name, (make, _) in v2.TrivialAugmentWide._AUGMENTATION_SPACE.items()}
SIGNED = {name for name, (_, signed) in v2.TrivialAugmentWide._AUGMENTATION_SPACE.items() if signed}


def policy(name: str = "trivial", interpolation: str = "bilinear") -> Policy:
    return Policy(name, SIZE, interpolation, BLANK)


def pictures(number: int) -> Tensor:
    """Smooth ones, with a channel that is darker and one that is flatter than the others."""
    coarse = torch.rand(number, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    smooth = functional.resize_image(coarse, [SIZE, SIZE], v2.InterpolationMode.BICUBIC).clamp(0, 1)
    return (
        smooth * torch.tensor([255.0, 140.0, 60.0])[:, None, None] + torch.tensor([0, 0, 80.0])[:, None, None]
    ).round()


def torchvisions(image: Tensor, operation: Operation, interpolation: str) -> Tensor:
    """The operation by torchvision on Pillow's image, as a worker process does it."""
    theirs = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode(interpolation), fill=BLANK.int().tolist())
    changed = theirs._apply_image_or_video_transform(
        functional.to_pil_image(image.byte()), operation.name, operation.strength, theirs.interpolation, theirs._fill
    )
    return functional.pil_to_tensor(changed)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", SPACE)
def test_operations_are_those_of_pillow_to_rounding(name: str, interpolation: str) -> None:
    strengths = [0.0] if SPACE[name] is None else SPACE[name][::5].tolist()
    strengths += [-strength for strength in strengths if name in SIGNED]
    operations = [Operation(name, strength) for strength in strengths]
    images = pictures(len(operations))
    changed = policy(interpolation=interpolation).apply(images.clone(), [[one] for one in operations])
    assert torch.equal(changed, changed.round())
    for image, operation, mine in zip(images, operations, changed, strict=True):
        difference = (torchvisions(image, operation, interpolation).float() - mine).abs()
        assert (difference > 2).float().mean() < 0.004, operation  # on the very edge of what lies beyond the image
        assert difference.mean() < 0.6, operation


def test_operations_follow_one_another() -> None:
    images = pictures(2)
    first, second = Operation("Solarize", 0.5), Operation("TranslateX", 7.0)
    both = policy().apply(images.clone(), [[first, second], [second, Operation("Identity", 0.0)]])
    one = policy().apply(images.clone(), [[first], [second]])
    assert torch.equal(both[1], one[1])
    assert torch.equal(both[0, :, :, 7:], one[0, :, :, :-7])
    assert torch.equal(both[0, :, :, :7], BLANK[:, None, None].expand(3, SIZE, 7))


def test_trivial_draws_one_operation_of_any_strength() -> None:
    rng = np.random.default_rng(0)
    drawn = [policy().draw(rng) for _ in range(7000)]
    assert {len(operations) for operations in drawn} == {1}
    counts = Counter(operation.name for (operation,) in drawn)
    assert set(counts) == set(SPACE)
    assert min(counts.values()) > 400  # 500 each, their standard deviation is 22
    rotations = np.array([operation.strength for (operation,) in drawn if operation.name == "Rotate"])
    assert rotations.min() == -135
    assert rotations.max() == 135
    assert abs(rotations.mean()) < 15  # their standard deviation is 79


def test_rand_draws_two_operations_of_medium_strength() -> None:
    rng = np.random.default_rng(0)
    drawn = [policy("rand").draw(rng) for _ in range(2000)]
    assert {len(operations) for operations in drawn} == {2}
    strengths = {operation.strength for operations in drawn for operation in operations if operation.name == "Rotate"}
    assert sorted(strengths) == pytest.approx([-9, 9])
    widths = {operation.strength for operations in drawn for operation in operations if operation.name == "TranslateX"}
    assert max(widths) == pytest.approx(0.3 * 150 / 331 * SIZE)
