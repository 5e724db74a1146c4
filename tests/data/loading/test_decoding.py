"""Files as cameras, scanners, editors and download tools write them."""

from __future__ import annotations

import base64
import struct
import sys
import warnings
import zlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from bad_images import find_bad_images
from PIL import Image, PngImagePlugin, TiffImagePlugin

from ftexp.config import DataConfig
from ftexp.data.digests import ContentDigests
from ftexp.data.loading import decoding
from ftexp.data.loading.decoding import decode_opened, open_lazily
from ftexp.data.loading.formats import describe_file
from ftexp.data.loading.images import open_image, open_place
from ftexp.data.loading.limits import NO_LIMITS
from ftexp.data.loading.screening import screen_images
from ftexp.data.places import InMemory
from ftexp.data.samples import Sample

# 40 x 30 pixels of one red, written by pillow-heif.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJp"
    "bG9jAAAAAERAAAEAAQAAAAABoAABAAAAAAAAADMAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAAB"
    "AAAA/GlwcnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEA"
    "AQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAU"
    "aXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAKAAAAAEAAAAeAAAAAf///+gAAAAC////3gAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlw"
    "bWEAAAAAAAAAAQABBYECAwWEAAAAO21kYXQAAAAvKAGvEyFkY0D1JyL//2jyn/oqGf9s9lhZ3K6AwVvy+sD2ZJvA86qRnoCHaacwFXg="
)


def decode(file: str | bytes, white_level: float | None = None, at_least: int | None = None) -> Image.Image:
    """Decode a file, by its path or by its bytes."""
    content = file if isinstance(file, bytes) else Path(file).read_bytes()
    return open_place(InMemory(content), str(file)[-20:], white_level, NO_LIMITS, at_least)


def png_of_16_bits(values: npt.NDArray[np.uint16]) -> bytes:
    """A PNG by hand, [H, W, C], because Pillow writes no colour of 16 bits."""
    height, width, channels = values.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(
    values: npt.NDArray[np.generic], path: Path, *, extra: int | None = None, order: str = "<", deflate: bool = False
) -> str:
    """A TIFF by hand, [H, W, C], of any number of channels and any kind of value."""
    height, width, channels = values.shape
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    pixels = zlib.compress(pixels) if deflate else pixels
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    bits = values.dtype.itemsize * 8
    tags = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * channels), (259, 3, [8 if deflate else 1]),
        (262, 3, [2 if channels > 2 else 1]), (277, 3, [channels]), (278, 4, [height]),
        (279, 4, [len(pixels)]), (339, 3, [kind] * channels),
    ]  # fmt: skip
    if extra is not None:
        tags.append((338, 3, [extra] * (channels - 3)))
    tags.append((273, 4, [0]))
    tags.sort()
    size, tail = 8 + 2 + 12 * len(tags) + 4, b""
    packed: list[bytes] = []
    for tag, type_, numbers in tags:
        content = struct.pack(f"{order}{len(numbers)}{'H' if type_ == 3 else 'I'}", *numbers)
        if len(content) > 4:
            tail, content = tail + content, struct.pack(f"{order}I", size + len(tail))
        packed.append(struct.pack(f"{order}HHI", tag, type_, len(numbers)) + content.ljust(4, b"\0"))
    index = [tag for tag, _, _ in tags].index(273)
    packed[index] = struct.pack(f"{order}HHII", 273, 4, 1, size + len(tail))
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    path.write_bytes(header + b"".join(packed) + bytes(4) + tail + pixels)
    return str(path)


def gray(level: int, size: int = 4) -> npt.NDArray[np.uint16]:
    return np.full((size, size, 1), level, np.uint16)


def saved(folder: Path, name: str, content: bytes) -> Sample:
    (folder / name).write_bytes(content)
    return Sample(str(folder / name), "a")


# --- more than 8 bits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "white", "expected"), [(4095, 4095, 255), (2048, 4095, 128), (200, 255, 200)])
def test_the_white_level_becomes_white(level: int, white: int, expected: int) -> None:
    assert decode(png_of_16_bits(gray(level)), white).getpixel((0, 0)) == (expected,) * 3


@pytest.mark.parametrize("kind", ["png", "tiff little endian", "tiff big endian", "tiff compressed"])
def test_colour_of_16_bits_keeps_its_lower_byte_under_a_white_level(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (5, 6, 3)).astype(np.uint16)
    if kind == "png":
        file = saved(tmp_path, "colour.png", png_of_16_bits(values)).path
    else:
        order = ">" if "big" in kind else "<"
        file = tiff(values, tmp_path / "colour.tif", order=order, deflate="compressed" in kind)
    assert np.array_equal(decode(file, 4095), np.round(values * (255 / 4095)).astype(np.uint8))
    assert np.array_equal(decode(file), values >> 8), "without one, Pillow's own: the upper byte"


def test_a_transparent_colour_of_16_bits_becomes_white() -> None:
    values = np.full((2, 2, 4), 1000, np.uint16)
    values[..., 3] = [[65535, 0], [65535, 0]]
    image = decode(png_of_16_bits(values), 4095)
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(62, 62, 62), (255, 255, 255)]


@pytest.mark.parametrize("channels", [2, 4])
def test_opaque_dark_colour_of_16_bits_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, channels: int
) -> None:
    values = np.full((4, 4, channels), 4095, np.uint16)
    values[..., -1] = 65535
    screen_images([saved(tmp_path, "x.png", png_of_16_bits(values))], DataConfig(source="imagefolder"), tmp_path)
    assert "the largest value is 3855 of 65535" in caplog.text


def test_gray_with_transparency_of_16_bits_has_no_white_level(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.png", png_of_16_bits(np.full((4, 4, 2), 99, np.uint16))).path
    ((_, reason),) = find_bad_images([Sample(path, "a", white_level=255)], 1)
    assert reason.startswith(
        "it is gray with transparency in 16 bits, to which data.white_level cannot be applied; save it"
    )


def test_a_value_above_the_white_level_is_a_bad_image(tmp_path: Path) -> None:
    sample = saved(tmp_path, "bright.png", png_of_16_bits(gray(4096)))
    with_level = Sample(sample.path, "a", white_level=4095)
    ((_, reason),) = find_bad_images([with_level], 1)
    assert reason.startswith("it has pixel values from 4096 to 4096; allowed are 0 to 4095. Set data.white_level to")


def test_the_white_level_makes_other_content_of_the_same_bytes(tmp_path: Path) -> None:
    sample = saved(tmp_path, "x.png", png_of_16_bits(gray(9)))
    digests = {ContentDigests().of(Sample(sample.path, "a", white_level=level)) for level in (None, 255, 4095)}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("levels", "white", "expected"),
    [
        ([0, 3000, 4095], None, "3 images with more than 8 bits per channel: the largest value is 4095 of 65535, so"),
        ([200], None, "1 image with more than 8 bits per channel: the largest value is 200 of 65535, so"),
        ([17, 20000], None, None),
        ([0, 3000, 4095, 65535], None, "3 of 4 images with more than 8 bits per channel: the largest value is 4095 of"),
        ([0, 4095], 4095, None),
        ([], 4095, "data.white_level=4095 has no effect: no image has more than 8 bits."),
    ],
)
def test_a_dataset_that_uses_few_of_its_bits_causes_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, levels: list[int], white: float | None, expected: str | None
) -> None:
    samples = [saved(tmp_path, f"{number}.png", png_of_16_bits(gray(level))) for number, level in enumerate(levels)]
    samples = [Sample(sample.path, "a", white_level=white) for sample in samples]
    Image.new("L", (4, 4), 7).save(tmp_path / "plain.png")
    samples.append(Sample(str(tmp_path / "plain.png"), "a"))
    screen_images(samples, DataConfig(source="imagefolder", white_level=white), tmp_path)
    assert [expected in message for message in caplog.messages if expected] == [True] * (expected is not None)
    assert len(caplog.messages) == (expected is not None)
    suggested = (
        "data.white_level=255, the value of white." if levels == [200] else "data.white_level=4095, the value of"
    )
    assert suggested in caplog.text or expected is None or white
    assert ("white; 1 with larger values will then count as bad." in caplog.text) == (65535 in levels)


def test_dark_colour_of_16_bits_is_warned_of_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sample = saved(tmp_path, "dark.png", png_of_16_bits(np.full((4, 4, 3), 4095, np.uint16)))
    screen_images([sample], DataConfig(source="imagefolder"), tmp_path)
    assert "the largest value is 3855 of 65535" in caplog.text, "the upper byte is all that Pillow keeps"
    assert "data.white_level=4095," in caplog.text


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp", "png", "avif"])
def test_a_stack_of_pages_or_frames_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str) -> None:
    pages = [Image.new("RGB", (16, 16), (level, level, level)) for level in (10, 100, 200)]
    pages[0].save(tmp_path / f"stack.{suffix}", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / f"one.{suffix}")
    samples = [Sample(str(tmp_path / f"{name}.{suffix}"), "a") for name in ("stack", "one")]
    screen_images(samples, DataConfig(source="imagefolder"), tmp_path)
    assert np.abs(np.asarray(open_image(samples[0])).astype(int) - 10).max() <= 2
    assert "1 file has several pages or frames (animations), up to 3; only the first of each is used." in caplog.text


def test_a_jpeg_that_is_called_like_a_raw_file_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / "x.dng", "JPEG")
    assert decode(str(tmp_path / "x.dng")).getpixel((0, 0)) == (9, 9, 9)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of the page
def test_a_damaged_page_behind_the_first_does_no_harm(tmp_path: Path) -> None:
    path = Path(tiff(np.full((2, 2, 3), 9, np.uint8), tmp_path / "x.tif"))
    content = bytearray(path.read_bytes())
    end = 8 + 2 + 12 * int.from_bytes(content[8:10], "little")  # here the first directory names the next
    content[end : end + 4] = struct.pack("<I", len(content) - 1)
    path.write_bytes(content)
    assert decode(str(path)).getpixel((1, 1)) == (9, 9, 9)


def test_the_second_picture_of_a_camera_and_the_sizes_of_an_icon_are_no_pages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = Image.new("RGB", (32, 32), "red")
    picture.save(tmp_path / "x.mpo", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    picture.save(tmp_path / "x.ico", sizes=[(16, 16), (32, 32)])
    screen_images(
        [Sample(str(tmp_path / f"x.{end}"), "a") for end in ("mpo", "ico")], DataConfig("imagefolder"), tmp_path
    )
    assert "pages" not in caplog.text


def test_the_transparent_colour_of_a_png_becomes_white(tmp_path: Path) -> None:
    pixels = np.full((1, 2, 3), 40, np.uint8)
    pixels[0, 1] = [200, 40, 40]
    Image.fromarray(pixels).save(tmp_path / "x.png", transparency=(200, 40, 40))
    assert decode(str(tmp_path / "x.png")).tobytes() == bytes([40, 40, 40, 255, 255, 255])


@pytest.mark.parametrize("white", [None, 65535.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_so_does_one_of_16_bits(channels: int, white: float | None) -> None:
    values = np.full((1, 2, channels), 0x2800, np.uint16)
    values[0, 1] = 0xC800
    key = struct.pack(f">{channels}H", *[0xC800] * channels)
    chunk = struct.pack(">I", len(key)) + b"tRNS" + key + struct.pack(">I", zlib.crc32(b"tRNS" + key))
    png = png_of_16_bits(values)
    image = decode(png[:33] + chunk + png[33:], white)  # behind the signature and the header
    assert image.tobytes() == bytes([40, 40, 40, 255, 255, 255])


def test_white_is_zero_in_16_bits_too(tmp_path: Path) -> None:
    values = np.array([[0, 65535, 0x4000]], np.uint16)
    Image.fromarray(values).save(tmp_path / "x.tif", tiffinfo={262: 0})
    assert np.asarray(decode(str(tmp_path / "x.tif")))[0, :, 0].tolist() == [255, 0, 191]
    Image.fromarray(values).save(tmp_path / "x.tif", tiffinfo={262: 1})
    assert np.asarray(decode(str(tmp_path / "x.tif")))[0, :, 0].tolist() == [0, 255, 64]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_floats_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.array([[0.5, value]], np.float32)).save(tmp_path / "x.tif")
    ((_, reason),) = find_bad_images([Sample(str(tmp_path / "x.tif"), "a")], 1)
    assert reason.startswith("it has pixel values that are not finite")


def test_of_negative_values_no_white_level_is_suggested(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-1000, 900]], np.int32)).save(tmp_path / "ct.tif")
    ((_, reason),) = find_bad_images([Sample(str(tmp_path / "ct.tif"), "a")], 1)
    assert reason.startswith("it has pixel values from -1000 to 900, and negative values are not supported. Choose")
    assert "white_level" not in reason


# --- EXIF and what else lies beside the pixels --------------------------------------------------------------------


def with_exif(folder: Path, exif: bytes) -> str:
    image = Image.new("RGB", (4, 2), "white")
    image.putpixel((0, 0), (0, 0, 0))
    image.save(folder / "x.png", exif=exif)
    return str(folder / "x.png")


def exif_bytes(*tags: tuple[int, int, int, int]) -> bytes:
    """Each tag as its number, type, count, and value or offset."""
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it skips
@pytest.mark.parametrize(
    "bad_tag",
    [
        (0x010F, 2, 2**31, 2**31),  # a maker's name of two gigabytes
        (0x8769, 4, 1, 2**31),  # the second directory lies behind the end
        (0x011A, 5, 1, 2**30),  # a fraction that lies behind the end
        (0x9286, 99, 4, 0),  # a type that there is not
    ],
)
def test_one_bad_tag_beside_the_orientation_does_no_harm(tmp_path: Path, bad_tag: tuple[int, int, int, int]) -> None:
    tags = sorted([(0x0112, 3, 1, 6), bad_tag])
    image = decode(with_exif(tmp_path, exif_bytes(*tags)))
    assert image.size == (2, 4)
    assert image.getpixel((1, 0)) == (0, 0, 0)


def test_pillows_warnings_of_damaged_tags_are_not_shown(tmp_path: Path) -> None:
    file = with_exif(tmp_path, exif_bytes((0x0112, 3, 1, 6), (0x9286, 7, 2**24, 20)))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        decoding._quiet_pillow.cache_clear()
        assert decode(file).size == (2, 4)
    decoding._quiet_pillow.cache_clear()
    assert shown == []


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0" + b"\xff" * 20, b"Exif\0\0"])
def test_exif_that_cannot_be_read_at_all_leaves_the_image_as_it_is(tmp_path: Path, exif: bytes) -> None:
    assert decode(with_exif(tmp_path, exif)).size == (4, 2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_pillows(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    pixels = np.random.default_rng(orientation).integers(0, 255, (3, 5, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decode(str(tmp_path / "x.png")), expected)


@pytest.mark.parametrize("kind", ["text", "colour profile"])
def test_a_png_with_megabytes_beside_the_picture_is_read(tmp_path: Path, kind: str) -> None:
    info, profile = PngImagePlugin.PngInfo(), b"\0" * 3_000_000
    if kind == "text":
        info.add_text("prompt", "x" * 3_000_000, zip=True)
    options = {"icc_profile": profile} if kind == "colour profile" else {}
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "x.png", pnginfo=info, **options)
    assert decode(str(tmp_path / "x.png")).getpixel((0, 0)) == (1, 2, 3)


# --- formats ------------------------------------------------------------------------------------------------------


def test_heic_is_read_where_its_extra_is_installed(tmp_path: Path) -> None:
    sample = saved(tmp_path, "IMG_0001.HEIC", HEIC)
    image = open_image(sample)
    assert image.size == (40, 30)
    assert np.abs(np.asarray(image).astype(int) - (200, 30, 40)).max() <= 3


def test_heic_without_its_extra_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])  # another test may have taught it
    ((_, reason),) = find_bad_images([saved(tmp_path, "x.heic", HEIC)], 1)
    assert reason == "is a HEIC image; to read it, pip install 'ftexp[heic]', or convert it to JPEG"


def test_a_damaged_heic_does_not_ask_for_the_extra_that_is_installed(tmp_path: Path) -> None:
    ((_, reason),) = find_bad_images([saved(tmp_path, "x.heic", HEIC[:60])], 1)
    assert reason.startswith("is a HEIC image that is damaged, or of a kind that pillow-heif cannot decode")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"%PDF-1.7 x", "is a PDF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer, .* run git lfs pull"),
        (b"<!DOCTYPE html><html>", r"is a web page \(HTML\)"),
        (b"\n  <html lang='en'>", r"is a web page \(HTML\)"),
        (b'<?xml version="1.0"?><svg xmlns="x">', "is an SVG drawing"),
        (b"\x93NUMPY\x01\0", "is a NumPy array"),
        (bytes(128) + b"DICM" + b"x", "is a DICOM file"),
        (b"\0\0\0\x20ftypisom", "is a video"),
        (b"\0\0\0\x18ftypcrx ", "is a raw file of a camera"),
        (b"\xff\x0a\x01", "is a JPEG XL image"),
        (b"\0\0\0\x20ftypavif", "is an AVIF image that cannot be decoded"),
        (b"\xef\xbb\xbf<html>", r"is a web page \(HTML\)"),
        (b"abc\x01\x02", "is not an image in a supported format"),
        (b"PK\x03\x04", "is a ZIP archive"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG image that is damaged; copy or download it again"),
        (b"\xff\xd8\xff\xe0" + bytes(8), "is a JPEG image that is damaged"),
        (b"GIF89a", "is a GIF image that is damaged"),
        (b"RIFF\x10\0\0\0WEBPVP8 xx", "is a WebP image that is damaged"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "is a sound"),
        (b"gimp xcf v011\0" + bytes(20), "is a file of GIMP"),
        (b"8BPS" + bytes(40), "is a file of Photoshop of a kind that is not supported"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is a drawing in PostScript"),
        (b"\x5c\x01\0\0" + bytes(340) + b"n+1\0", "is a NIfTI volume"),
        (b"", "is empty"),
        (bytes(500), "begins with zero bytes: it was not written completely"),
        (b"path,label\n", "is text, not an image"),
        (b"\x8f\x01\x02\x99", "is not an image in a supported format"),
    ],
)
def test_a_file_that_is_not_an_image_is_described(tmp_path: Path, start: bytes, expected: str) -> None:
    (tmp_path / "x.jpg").write_bytes(start)
    with pytest.raises(Exception, match=rf"x\.jpg: {expected}"):
        open_image(Sample(str(tmp_path / "x.jpg"), "a"))


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        ((4, 4, 5), np.uint16, r"is a TIFF with 5 channels of 16 bits \(unsigned integers\), which is not supported"),
        ((4, 4, 3), np.float32, r"is a TIFF with 3 channels of 32 bits \(floats\)"),
        ((4, 4, 1), np.float64, r"is a TIFF with 1 channel of 64 bits \(floats\)"),
    ],
)
def test_a_tiff_that_pillow_has_no_mode_for_is_described(
    tmp_path: Path, shape: tuple[int, ...], kind: type[np.generic], expected: str
) -> None:
    file = tiff(np.zeros(shape, kind), tmp_path / "x.tif")
    with pytest.raises(Exception, match=expected):
        open_image(Sample(file, "a"))


def test_a_fourth_channel_that_is_no_transparency_is_not_dropped(tmp_path: Path) -> None:
    file = tiff(np.full((4, 4, 4), 9, np.uint8), tmp_path / "x.tif", extra=0)
    with pytest.raises(ValueError, match=r"x\.tif: it has a fourth channel that is not transparency"):
        open_image(Sample(file, "a"))


def test_a_raw_file_of_a_camera_is_not_its_thumbnail(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "photo.tif")
    (tmp_path / "photo.tif").rename(tmp_path / "photo.NEF")
    content = (tmp_path / "photo.NEF").read_bytes()
    assert describe_file("photo.NEF", content).startswith("is a raw file of a camera")
    with pytest.raises(ValueError, match="is a raw file of a camera; export it"):
        open_image(Sample(str(tmp_path / "photo.NEF"), "a"))
    with pytest.raises(Exception, match="raw file"):
        open_lazily(content, "photo.NEF", NO_LIMITS)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of the tags
def test_a_damaged_tiff_is_described_without_its_tags() -> None:
    assert "is a TIFF of a kind that is not supported" in describe_file("x.tif", b"II*\0" + b"\xff" * 8)


def test_a_plain_image_causes_no_warning(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.tif", compression="tiff_lzw", tiffinfo={TiffImagePlugin.SOFTWARE: "x"})
    with open_lazily((tmp_path / "x.tif").read_bytes(), "x.tif", NO_LIMITS) as image:
        decoded = decode_opened(image)
    assert (decoded.depth.peak, decoded.depth.num_pages) == (None, 1)


@pytest.mark.parametrize(
    ("installed", "named"),
    [
        ({"pillow": "12.1", "pillow-heif": "1.8.1"}, "pillow 12.1, pillow-heif 1.8.1"),
        ({"pillow": "12.1"}, "pillow 12.1"),
    ],
)
def test_the_packages_that_decode_are_named_with_their_versions(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], named: str
) -> None:
    def version(package: str) -> str:
        if package not in installed:
            raise PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(decoding, "version", version)
    assert decoding.decoders.__wrapped__() == named


def test_a_jpeg_is_decoded_at_the_fraction_of_its_size_that_is_needed(tmp_path: Path) -> None:
    image = Image.linear_gradient("L").resize((1000, 800)).convert("RGB")
    for name, expected in (("large.jpg", (500, 400)), ("large.png", (1000, 800))):
        image.save(tmp_path / name)
        assert decode(str(tmp_path / name), at_least=300).size == expected
        assert decode(str(tmp_path / name)).size == (1000, 800)
