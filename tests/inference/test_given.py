"""Whatever a program has of an image is the same picture, and what is none is said."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from shards import png

from ftexp.data.loading.limits import ImageLimits
from ftexp.errors import DataError
from ftexp.inference.given import GivenImage, given_images

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
CHANNELS_FIRST = torch.from_numpy(PICTURE.transpose(2, 0, 1).copy())


def opened(image: object, limits: ImageLimits | None = None) -> Image.Image:
    [given] = [GivenImage(image)] if isinstance(image, list) else given_images(image)
    return given.open(limits=limits)


def pixels(image: object) -> np.ndarray:
    return np.asarray(opened(image))


def test_all_forms_of_one_picture_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "ä b.png"
    Image.fromarray(PICTURE).save(file)
    opaque = np.dstack([PICTURE, np.full((12, 10), 255, np.uint8)])
    forms = [PICTURE, PICTURE.tolist(), PICTURE.astype(float), opaque, str(file), file, file.read_bytes()]
    forms += [Image.fromarray(PICTURE), Image.fromarray(opaque), CHANNELS_FIRST, CHANNELS_FIRST / 255]
    for form in forms:
        assert np.array_equal(pixels(form), PICTURE), type(form)


def test_gray_is_the_same_in_all_channels() -> None:
    gray = PICTURE[:, :, 0]
    for form in (gray, CHANNELS_FIRST[:1], Image.fromarray(gray)):
        assert np.array_equal(pixels(form), np.dstack([gray] * 3))


def test_transparency_lies_on_white() -> None:
    clear = np.dstack([PICTURE, np.zeros((12, 10), np.uint8)])
    stream = io.BytesIO()
    Image.fromarray(clear).save(stream, "PNG")
    for form in (clear, stream.getvalue(), Image.fromarray(clear)):
        assert (pixels(form) == 255).all()


def test_folders_globs_and_iterables_are_flattened_in_natural_order(tmp_path: Path) -> None:
    for name in ("a10.png", "a2.png", "inner/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(PICTURE).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    inside = [str(tmp_path / name) for name in ("a2.png", "a10.png", "inner/b.png")]
    assert [given.path for given in given_images(tmp_path)] == inside
    assert [given.path for given in given_images(str(tmp_path / "*.png"))] == inside[:2]
    assert [given.path for given in given_images(str(tmp_path / "**/*.png"))] == inside
    nested = [inside[0], (tmp_path / "inner", [PICTURE]), iter([CHANNELS_FIRST])]
    assert [given.path for given in given_images(nested)] == [inside[0], inside[2], None, None]


def test_a_batch_is_an_image_after_the_other() -> None:
    for batch in (np.stack([PICTURE] * 3), torch.stack([CHANNELS_FIRST] * 3)):
        images = list(given_images(batch))
        assert len(images) == 3
        assert np.array_equal(np.asarray(images[2].open()), PICTURE)


def test_a_file_whose_name_is_a_pattern_is_that_file(tmp_path: Path) -> None:
    file = tmp_path / "a[1]*.png"
    Image.fromarray(PICTURE).save(file)
    assert [given.path for given in given_images(str(file))] == [str(file)]


def test_nothing_is_read_ahead() -> None:
    def numbers() -> Iterator[np.ndarray]:
        yield PICTURE
        raise AssertionError("the second one was asked for")

    assert next(given_images(numbers())).open().size == (10, 12)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("memory://none/*.png", r"memory://none/\*\.png matches no file"),
        ("no*such.png", r"no\*such\.png matches no file"),
        (None, "'None' of type NoneType is no image. An image is a path, a URL, a folder"),
        (3.5, "'3.5' of type float is no image"),
        ({"a": 1}, "of type dict is no image"),
    ],
)
def test_what_stands_for_no_image_is_refused(images: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(given_images(images))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder without images"):
        list(given_images(tmp_path))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("no such.png", r"no such\.png: there is no such file"),
        (__file__, r"test_given\.py: .*text"),
        (b"no image", "These bytes: is "),
        (b"", "These bytes: is empty"),
        (np.zeros((3, 12, 10)), r"shape \[3, 12, 10\] is no image: it has to be \[H, W, 3\] or \[H, W\]"),
        (np.zeros((0, 0, 3)), r"shape \[0, 0, 3\]"),
        (np.full((12, 10), 0.5), "An array of float64 is an image when its values are whole numbers from 0 to 255"),
        (np.full((12, 10), 256), "An array of int64 is"),
        (np.full((12, 10), -1), "An array of int64 is"),
        (np.full((12, 10), np.nan), "An array of float64 is"),
        (np.array([["a"]]), "An array of <U1 is"),
        (np.ones((12, 10), bool), "An array of bool is"),
        (torch.zeros(12, 10, 3), r"A tensor of shape \[12, 10, 3\] is no image: it has to be \[3, H, W\]"),
        (torch.full((3, 4, 4), -0.5), "values are between 0 and 1. This one has others: give the image before it is"),
        (torch.full((3, 4, 4), float("nan")), "values are between 0 and 1"),
    ],
)
def test_what_is_no_image_is_refused(image: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(image)


def test_a_file_beyond_the_limits_is_not_decoded(tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(DataError, match=r"large\.png: 65\.0 MiB, above data\.max_file_mib=64"):
        opened(tmp_path / "large.png")


def test_a_pil_image_is_turned_as_the_file_that_it_was_opened_from(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(tmp_path / "turned.png", exif=exif)
    expected = pixels(tmp_path / "turned.png")
    assert expected.shape == (10, 12, 3)
    with Image.open(tmp_path / "turned.png") as opened:
        assert np.array_equal(pixels(opened), expected)
        assert np.array_equal(pixels(opened.convert("RGB")), expected)


def test_a_pil_image_of_16_bits_is_read_as_its_file(tmp_path: Path) -> None:
    values = np.arange(120, dtype=np.uint16).reshape(12, 10) * 500
    Image.fromarray(values).save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as opened:
        loaded = opened.copy()
        for form in (opened, loaded):
            assert np.array_equal(pixels(form), pixels(tmp_path / "deep.png"))


def test_a_pil_image_that_is_cut_short_is_said(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3)).astype(np.uint8)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(DataError, match=r"This PIL image cannot be read: .*truncated"):
        opened(Image.open(io.BytesIO(content[: len(content) // 2])))


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "large.png")
    content = (tmp_path / "large.png").read_bytes()
    limits = ImageLimits(max_pixels=119)
    with pytest.raises(DataError, match=r"large\.png: 0\.0 megapixels, above data\.max_megapixels=0\.000119$"):
        opened(tmp_path / "large.png", limits=limits)
    with pytest.raises(DataError, match=r"These bytes: 0\.0 megapixels, above"):
        opened(content, limits=limits)
    assert opened(content, limits=ImageLimits(max_pixels=120)).size == (10, 12)


def test_a_folder_is_not_taken_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder, not a file"):
        GivenImage.of_file(str(tmp_path)).open()


def test_a_file_is_not_downloaded() -> None:
    fsspec.filesystem("memory").pipe("/given/a.png", png("red", 0))
    with pytest.raises(DataError, match=r"^memory://given/a\.png: there is no such file$"):
        GivenImage.of_file("memory://given/a.png").open()
