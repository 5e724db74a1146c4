from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bad_images import find_bad_images
from PIL import Image

from ftexp.config import DataConfig
from ftexp.data.loading import screening
from ftexp.data.loading.images import open_image
from ftexp.data.loading.limits import ImageLimits
from ftexp.data.loading.screening import screen_images
from ftexp.data.samples import Sample
from ftexp.errors import DataError


def saved(path: Path, image: Image.Image, **options: object) -> Sample:
    image.save(path, **options)
    return Sample(str(path), "a")


def pixel(sample: Sample, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image = open_image(sample)
    assert image.mode == "RGB"
    value = image.getpixel(at)
    assert isinstance(value, tuple)
    return value


def test_pixels_in_memory_are_taken_as_they_are() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(open_image(Sample("x", "a", pixels=pixels)), pixels)


def test_grey_and_one_bit(tmp_path: Path) -> None:
    assert pixel(saved(tmp_path / "l.png", Image.new("L", (2, 2), 77))) == (77, 77, 77)
    assert pixel(saved(tmp_path / "1.png", Image.new("1", (2, 2), 1))) == (255, 255, 255)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (257 * 100, 100)])
def test_16_bits_keep_their_brightness(tmp_path: Path, value: int, expected: int) -> None:
    image = Image.fromarray(np.full((2, 2), value, np.uint16))
    assert pixel(saved(tmp_path / "16.png", image)) == (expected,) * 3


def test_floats_from_0_to_1(tmp_path: Path) -> None:
    assert pixel(saved(tmp_path / "f.tif", Image.new("F", (2, 2), 0.2))) == (51, 51, 51)


def test_floats_outside_have_no_rule(tmp_path: Path) -> None:
    sample = saved(tmp_path / "f.tif", Image.new("F", (2, 2), 7.0))
    with pytest.raises(
        DataError, match=r"f\.tif: it has pixel values from 7 to 7; allowed are 0 to 1\. Set data\.white_"
    ):
        open_image(sample)


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    assert pixel(saved(tmp_path / "clear.png", Image.new("RGBA", (2, 2), (10, 20, 30, 0)))) == (255, 255, 255)
    assert pixel(saved(tmp_path / "solid.png", Image.new("RGBA", (2, 2), (10, 20, 30, 255)))) == (10, 20, 30)
    assert pixel(saved(tmp_path / "la.png", Image.new("LA", (2, 2), (10, 0)))) == (255, 255, 255)


def test_a_transparent_palette_colour_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert pixel(saved(tmp_path / "solid.png", image)) == (10, 20, 30)
    assert pixel(saved(tmp_path / "clear.png", image, transparency=0)) == (255, 255, 255)


def test_cmyk(tmp_path: Path) -> None:
    red, green, blue = pixel(saved(tmp_path / "c.tif", Image.new("CMYK", (2, 2), (0, 255, 255, 0))))
    assert (red, green, blue) == (255, 0, 0)


def test_exif_orientation_turns_the_image_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2), "white")
    image.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    upright = open_image(saved(tmp_path / "o.png", image, exif=exif))
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (0, 0, 0)


def bad_files(folder: Path) -> list[Sample]:
    (folder / "notes.jpg").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    rng = np.random.default_rng(0)
    whole = folder / "whole.jpg"
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    (folder / "cut.jpg").write_bytes(whole.read_bytes()[:-500])
    names = ["notes.jpg", "whole.jpg", "empty.png", "cut.jpg", "gone.png"]
    return [Sample(str(folder / name), "a") for name in names]


@pytest.mark.parametrize("at_a_time", [2, 1024])
def test_all_bad_files_are_found_in_one_pass(tmp_path: Path, at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "CHUNK", at_a_time)
    bad = find_bad_images(bad_files(tmp_path), workers=2)
    assert [Path(sample.path).name for sample, _ in bad] == ["notes.jpg", "empty.png", "cut.jpg", "gone.png"]
    for (_, reason), expected in zip(bad, ["is text", "is empty", "truncated", "no such file"], strict=True):
        assert expected in reason


def test_the_message_lists_the_bad_images_and_says_what_to_do(tmp_path: Path) -> None:
    message = (
        r"(?s)4 of 5 files cannot be read.*notes\.jpg: is text, not an image.*Remove or replace.*on_bad_image=skip"
    )
    with pytest.raises(DataError, match=message):
        screen_images(bad_files(tmp_path), DataConfig(source="imagefolder"), tmp_path)
    assert (tmp_path / "bad_images.csv").exists()


def test_a_long_list_is_shortened(tmp_path: Path) -> None:
    samples = [Sample(str(tmp_path / f"{i}.png"), "a") for i in range(25)]
    with pytest.raises(DataError, match=r"(?s)25 of 25 files.*\.\.\. and 5 more") as raised:
        screen_images(samples, DataConfig(source="imagefolder"), tmp_path, workers=2)
    assert str(raised.value).count("no such file") == 20


def test_limits_on_bytes_and_pixels_come_before_decoding(tmp_path: Path) -> None:
    sample = saved(tmp_path / "big.png", Image.new("RGB", (200, 100)))
    assert find_bad_images([sample], 1, ImageLimits(max_pixels=20_000)) == []
    ((_, reason),) = find_bad_images([sample], 1, ImageLimits(max_pixels=19_999))
    assert "megapixels, above data.max_megapixels=0.019999" in reason
    ((_, reason),) = find_bad_images([sample], 1, ImageLimits(max_file_bytes=10))
    assert "MiB, above data.max_file_mib=" in reason


def test_a_decompression_bomb_is_a_bad_image(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    # 10,000 x 10,000 black pixels of one bit: a few kilobytes on disk, 300 MB as RGB.
    bomb = saved(tmp_path / "bomb.png", Image.new("1", (10_000, 10_000)))
    assert Path(bomb.path).stat().st_size < 50_000
    ((_, reason),) = find_bad_images([bomb], 1)
    assert "100.0 megapixels" in reason
    assert not recwarn.list


def test_skipping_lists_the_bad_and_keeps_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = bad_files(tmp_path)
    kept = screen_images(samples, DataConfig(source="imagefolder", on_bad_image="skip"), tmp_path)
    assert [Path(s.path).name for s in kept] == ["whole.jpg"]
    lines = (tmp_path / "bad_images.csv").read_text().splitlines()
    assert lines[0] == "path,label,split,reason"
    assert len(lines) == 5
    assert "4 of 5 images are bad and left out" in caplog.text


def test_good_images_leave_no_list(tmp_path: Path) -> None:
    samples = [saved(tmp_path / "ok.png", Image.new("RGB", (4, 4)))]
    kept = screen_images(samples, DataConfig(source="imagefolder"), tmp_path)
    assert [sample.path for sample in kept] == [samples[0].path]
    assert not (tmp_path / "bad_images.csv").exists()
