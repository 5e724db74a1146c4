"""Recognises files that are not readable images by their first bytes, and says what to do with them."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import TiffImagePlugin

HEIC_EXTRA = "heic"
NUM_FIRST_BYTES = 4096
TIFF_HEADERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Raw files of cameras are TIFF files in which a TIFF reader finds only a thumbnail.
RAW_SUFFIXES = frozenset({".dng", ".nef", ".cr2", ".arw", ".srf", ".sr2", ".pef", ".srw", ".3fr", ".iiq"})
RAW = "is a raw file of a camera; export it as JPEG, PNG or TIFF"

DAMAGED = "that is damaged; copy or download it again"

# First bytes -> what the file is, and what to do.
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "is a PDF; save its images as PNG or JPEG"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the image itself; run git lfs pull"),
    (b"\x93NUMPY", "is a NumPy array; save it as PNG or TIFF"),
    (b"\x89HDF", "is an HDF5 file; save its images as PNG or TIFF"),
    (b"v/1\x01", "is an OpenEXR image; convert it to PNG or TIFF"),
    (b"#?RADIANCE", "is a Radiance HDR image; convert it to PNG or TIFF"),
    (b"\xff\x0a", "is a JPEG XL image; convert it to JPEG or PNG"),
    (b"\0\0\0\x0cJXL ", "is a JPEG XL image; convert it to JPEG or PNG"),
    (b"PK\x03\x04", "is a ZIP archive; unpack it"),
    (b"\x1f\x8b", "is a gzip archive; unpack it"),
    (b"Rar!", "is a RAR archive; unpack it"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it"),
    (b"\x1aE\xdf\xa3", "is a video; save its frames as images"),
    (b"IIU\0", RAW),
    (b"IIRO", RAW),
    (b"FUJIFILM", RAW),
    (b"gimp xcf", "is a file of GIMP; export it as PNG"),
    (b"8BPS", "is a file of Photoshop of a kind that is not supported; export it as PNG"),
    (b"%!PS", "is a drawing in PostScript; convert it to PNG"),
    (b"\x89PNG\r\n", f"is a PNG image {DAMAGED}"),
    (b"\xff\xd8\xff", f"is a JPEG image {DAMAGED}"),
    (b"GIF8", f"is a GIF image {DAMAGED}"),
    (b"\0\0\0\x0cjP  ", f"is a JPEG 2000 image {DAMAGED}"),
)
# What a RIFF file has, by its bytes 8 to 12.
RIFF_KINDS = {
    b"WEBP": f"is a WebP image {DAMAGED}",
    b"WAVE": "is a sound",
    b"AVI ": "is a video; save its frames as images",
}
# The brands of HEIC and HEIF files, which follow "ftyp" in an ISO media file.
HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
TEXT_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype html", "is a web page (HTML), not an image; the download may have failed"),
    (b"<html", "is a web page (HTML), not an image; the download may have failed"),
    (b"<svg", "is an SVG drawing; convert it to PNG"),
)
SAMPLE_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}


def is_heic(first_bytes: bytes) -> bool:
    """Whether the first bytes are those of a HEIC or HEIF image."""
    return first_bytes[4:8] == b"ftyp" and first_bytes[8:12] in HEIC_BRANDS


def is_camera_raw(path: str, image_format: str | None) -> bool:
    """Whether the file is a raw file of a camera, in which Pillow (which reports this format) finds a thumbnail."""
    return image_format == "TIFF" and Path(path).suffix.lower() in RAW_SUFFIXES


def describe_file(path: str, content: bytes) -> str:
    """Describe a file that no decoder recognises, as the end of a sentence that begins with its name.

    Args:
        path: its path, or the unique name of an image.
        content: its bytes.
    """
    start = content[:NUM_FIRST_BYTES]
    if not start:
        return "is empty"
    if not any(start):
        return "begins with zero bytes: it was not written completely; copy it again"
    if start.startswith(TIFF_HEADERS):
        return RAW if Path(path).suffix.lower() in RAW_SUFFIXES else _describe_tiff(content)
    if start[4:8] == b"ftyp":
        return _describe_media(start)
    if start[128:132] == b"DICM":
        return "is a DICOM file; convert it to PNG or TIFF"
    if start[344:347] in (b"n+1", b"ni1"):
        return "is a NIfTI volume; save its slices as PNG or TIFF"
    if start.startswith(b"RIFF") and start[8:12] in RIFF_KINDS:
        return RIFF_KINDS[start[8:12]]
    known = [what for signature, what in SIGNATURES if start.startswith(signature)]
    return known[0] if known else _describe_text(start)


def _describe_media(start: bytes) -> str:
    if is_heic(start) and importlib.util.find_spec("pillow_heif") is not None:
        return "is a HEIC image that is damaged, or of a kind that pillow-heif cannot decode; convert it to JPEG"
    if is_heic(start):
        return f"is a HEIC image; to read it, pip install 'ftexp[{HEIC_EXTRA}]', or convert it to JPEG"
    brand = start[8:12]
    if brand in (b"avif", b"avis"):
        return "is an AVIF image that cannot be decoded; convert it to JPEG or PNG"
    return RAW if brand == b"crx " else "is a video; save its frames as images"


def _describe_text(start: bytes) -> str:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, what in TEXT_STARTS:
        if text.startswith(beginning) or (text.startswith(b"<?xml") and beginning in text):
            return what
    try:
        printable = start[:512].decode("ascii").replace("\n", "").replace("\r", "").replace("\t", "").isprintable()
    except UnicodeDecodeError:
        printable = False
    return "is text, not an image" if printable else "is not an image in a supported format"


def _describe_tiff(content: bytes) -> str:
    """Describe the layout of a TIFF that Pillow cannot read."""
    unknown = "is a TIFF of a kind that is not supported; save it as RGB or gray with 8 bits"
    try:
        with io.BytesIO(content) as file:
            header = file.read(8)
            header += file.read(8) if header[2:4] in (b"+\0", b"\0+") else b""  # the header of a BigTIFF is longer
            directory = TiffImagePlugin.ImageFileDirectory_v2(header)
            file.seek(directory.next)
            directory.load(file)
        bits = _first(directory[TiffImagePlugin.BITSPERSAMPLE])
        channels = int(directory.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
        kind = _first(directory.get(TiffImagePlugin.SAMPLEFORMAT, 1))
    except Exception:  # on damaged bytes, Pillow raises many kinds of exceptions
        return unknown
    values = SAMPLE_FORMATS.get(kind, "unknown values")
    return (
        f"is a TIFF with {channels} channel{'s' * (channels != 1)} of {bits} bits ({values}), which is not supported; "
        "save it as RGB or gray with 8 bits, or as gray with 16"
    )


def _first(value: Sequence[int] | int) -> int:
    return int(value if isinstance(value, int) else value[0])
