"""The transform within an exported graph gives the gray levels that Pillow gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ftexp.data.augment.transforms import Normalizer, eval_transform
from ftexp.errors import ConfigError
from ftexp.exporting.pixels import PixelTransform, _first, _rounded
from ftexp.preprocessing import Preprocessing

CENTER = Preprocessing(32, 36, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Height and width: larger and smaller than the square, in both shapes, equal, a single pixel, a strip.
SIZES = [(61, 83), (70, 64), (20, 17), (36, 36), (32, 50), (1, 1), (7, 400), (64, 131)]


def picture(height: int, width: int) -> np.ndarray:
    """Edges and noise, with levels near both ends, which bicubic weights exceed."""
    rng = np.random.default_rng(height * 1000 + width)
    pixels = rng.integers(0, 256, (height, width, 3))
    pixels[: height // 2, : width // 2] = (0, 255, 128)
    return pixels.astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("changes", [{}, {"crop_mode": "squash"}, {"crop_mode": "border", "resize_size": 30}])
def test_gray_levels_are_those_of_pillow(interpolation: str, changes: dict[str, object]) -> None:
    preprocessing = replace(CENTER, interpolation=interpolation, **changes)
    transform, graph = eval_transform(preprocessing), PixelTransform(preprocessing)
    differ = []
    for height, width in SIZES:
        pixels = picture(height, width)
        expected = transform(Image.fromarray(pixels)).float()
        found = graph.resized(torch.from_numpy(pixels)[None])[0]
        gaps = (found - expected).abs()
        assert gaps.max() <= 1, (height, width)  # a half, which sums of float32 round to the other side
        differ.append(float((gaps > 0).float().mean()))
    assert np.mean(differ) < (0.001 if interpolation == "bicubic" else 0.02)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_gray_levels_of_a_tall_image_are_nearly_those_of_pillow(interpolation: str) -> None:
    pixels = np.array(Image.fromarray(picture(20, 8)).resize((60, 150)))  # soft, as photographs are
    preprocessing = replace(CENTER, interpolation=interpolation)
    expected = eval_transform(preprocessing)(Image.fromarray(pixels)).float()
    gaps = (PixelTransform(preprocessing).resized(torch.from_numpy(pixels)[None])[0] - expected).abs()
    assert gaps.max() <= 2


def test_a_crop_that_is_larger_than_the_image_is_padded_as_torchvision_does() -> None:
    preprocessing = replace(CENTER, resize_size=25, interpolation="bilinear")
    pixels = picture(31, 27)
    expected = eval_transform(preprocessing)(Image.fromarray(pixels)).float()
    found = PixelTransform(preprocessing).resized(torch.from_numpy(pixels)[None])[0]
    assert (found - expected).abs().max() <= 1
    assert (found[:, :2] == 0).all()
    assert (found[:, :, :3] == 0).all()


def test_normalised_as_in_training() -> None:
    pixels = torch.from_numpy(picture(32, 32))[None]
    preprocessing = replace(CENTER, resize_size=32)
    expected = Normalizer(preprocessing)(pixels.permute(0, 3, 1, 2))
    torch.testing.assert_close(PixelTransform(preprocessing)(pixels), expected)


def test_images_of_a_batch_do_not_mix() -> None:
    pixels = torch.from_numpy(np.stack([picture(40, 50), 255 - picture(40, 50)]))
    graph = PixelTransform(CENTER)
    torch.testing.assert_close(graph(pixels), torch.cat([graph(pixels[:1]), graph(pixels[1:])]))


def test_halves_are_rounded_as_python_rounds_them() -> None:
    assert [_first(size, 10) for size in (10, 11, 12, 13, 15, 17)] == [0, 0, 1, 2, 2, 4]
    assert [_first(size, 10) for size in (9, 8, 7)] == [0, -1, -1]
    assert [_rounded(n, 4) for n in (1, 2, 5, 6, 10, 14)] == [1, 1, 1, 2, 2, 4]


def test_another_interpolation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"resizes by bilinear or bicubic interpolation, and .* expect lanczos"):
        PixelTransform(replace(CENTER, interpolation="lanczos"))
