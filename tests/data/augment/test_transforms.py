from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from ftexp.config import AugmentConfig
from ftexp.data.augment.transforms import Normalizer, eval_transform, train_transform
from ftexp.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 10, "bilinear", (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))


def picture(width: int = 40, height: int = 20) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def test_eval_view_is_resize_then_centre_crop() -> None:
    tensor = eval_transform(PREPROCESSING)(picture())
    assert tensor.dtype == torch.uint8
    expected = picture().resize((20, 10), Image.Resampling.BILINEAR).crop((6, 1, 14, 9))
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_without_augmentation_training_sees_the_eval_view() -> None:
    assert torch.equal(
        train_transform(PREPROCESSING, AugmentConfig())(picture()), eval_transform(PREPROCESSING)(picture())
    )


@pytest.mark.parametrize("setting", [{"crop_scale": 0.3}, {"horizontal_flip": 1.0}, {"color_jitter": 0.9}])
def test_each_augmentation_changes_the_image_and_not_its_shape(setting: dict[str, float]) -> None:
    torch.manual_seed(0)
    tensor = train_transform(PREPROCESSING, AugmentConfig(**setting))(picture())
    assert tensor.shape == (3, 8, 8)
    assert tensor.dtype == torch.uint8
    assert not torch.equal(tensor, eval_transform(PREPROCESSING)(picture()))


def test_flip_is_the_mirror_image() -> None:
    flipped = train_transform(PREPROCESSING, AugmentConfig(horizontal_flip=1.0))(picture())
    assert torch.equal(flipped, eval_transform(PREPROCESSING)(picture()).flip(-1))


def test_views_travel_to_worker_processes() -> None:
    transform = pickle.loads(
        pickle.dumps(train_transform(PREPROCESSING, AugmentConfig(crop_scale=0.5, color_jitter=0.1)))
    )
    assert transform(picture()).shape == (3, 8, 8)


def test_normalizer_by_hand() -> None:
    images = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8).to(memory_format=torch.channels_last)
    images[0] = 0
    floats = Normalizer(PREPROCESSING)(images)
    assert floats.dtype == torch.float32
    torch.testing.assert_close(floats[0, :, 0, 0], torch.tensor([-1.0, -1.6, -1.5]))
    torch.testing.assert_close(floats[1, :, 0, 0], torch.tensor([1.0, 2.4, 3.5]))
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert images[1].eq(255).all(), "the batch itself stays as it is"


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_policies_change_images_from_draw_to_draw_and_repeat_with_the_generator(policy: str) -> None:
    transform = train_transform(PREPROCESSING, AugmentConfig(policy=policy))
    torch.manual_seed(0)
    first = [transform(picture()) for _ in range(8)]
    torch.manual_seed(0)
    assert all(torch.equal(transform(picture()), image) for image in first)
    assert all(image.dtype == torch.uint8 and image.shape == (3, 8, 8) for image in first)
    assert any(not torch.equal(image, first[0]) for image in first)


def test_erasing_blanks_a_rectangle_with_the_mean_colour() -> None:
    plain = eval_transform(PREPROCESSING)(picture())
    erased = train_transform(PREPROCESSING, AugmentConfig(erasing=1.0))(picture())
    changed = (erased != plain).any(dim=0)
    assert 1 <= changed.sum() < 64
    assert erased[:, changed].unique(dim=1).T.tolist() == [[128, 102, 76]]  # 255 times the means 0.5, 0.4 and 0.3


@pytest.mark.parametrize(
    "setting",
    [
        {"crop_scale": 0.9},
        {"horizontal_flip": 0.5},
        {"color_jitter": 0.1},
        {"policy": "rand"},
        {"erasing": 0.1},
        {"mixup": 0.1},
        {"cutmix": 0.1},
    ],
)
def test_every_augmentation_counts_as_random(setting: dict[str, object]) -> None:
    """The activations of frozen blocks are kept only where images stay the same."""
    assert AugmentConfig(**setting).is_random
    assert not AugmentConfig().is_random


@pytest.mark.parametrize("size", [(650, 10), (10, 651), (400, 3)])
@pytest.mark.parametrize("crop", [8, 12])
def test_the_middle_of_a_strip_is_resized_alone_and_to_the_same(size: tuple[int, int], crop: int) -> None:
    preprocessing = Preprocessing(crop, 10, "bilinear", (0.5,) * 3, (0.5,) * 3)
    strip = Image.linear_gradient("L").resize(size).convert("RGB")
    whole = v2.Compose([v2.Resize(10, antialias=True), v2.CenterCrop(crop), v2.PILToTensor()])(strip)
    assert (eval_transform(preprocessing)(strip).int() - whole.int()).abs().max() <= 1


def test_a_strip_of_one_pixel_takes_no_gigabytes() -> None:
    """Its short side enlarged to 224 px, all of it would have 224 x 14,560,000 pixels: 9.8 GB."""
    preprocessing = Preprocessing(224, 224, "bicubic", (0.5,) * 3, (0.5,) * 3)
    tensor = eval_transform(preprocessing)(Image.new("RGB", (65_000, 1), (10, 20, 30)))
    assert tensor.shape == (3, 224, 224)
    assert tensor.flatten(1).unique(dim=1).flatten().tolist() == [10, 20, 30]
