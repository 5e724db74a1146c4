"""From a sample to an RGB image, whatever the file holds; and the check that every file can be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ftexp.data.samples import Sample
from ftexp.errors import DataError

MAX_NAMED = 20


def open_image(sample: Sample) -> Image.Image:
    """Decode one sample.

    Returns:
        An RGB image of 8 bits, turned upright by its EXIF orientation; transparency lies on white.

    Raises:
        DataError: when the file is missing, is no image, or is cut short.
    """
    if sample.pixels is not None:
        return Image.fromarray(sample.pixels)
    try:
        with Image.open(sample.path) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        raise DataError(f"{sample.path}: {_reason(error, sample.path)}") from error


def check_images(samples: Sequence[Sample], workers: int | str = "auto") -> None:
    """Decode every image once, so that training never meets a bad one.

    Args:
        workers: number of threads; ``auto``: one per core.

    Raises:
        DataError: naming the bad files (all are found in the one pass; the message lists the first 20).
    """
    bad = find_bad_images(samples, workers)
    if not bad:
        return
    named = "\n".join(f"  {reason}" for _, reason in bad[:MAX_NAMED])
    more = f"\n  ... and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
    raise DataError(
        f"{len(bad)} of {len(samples)} files cannot be read as images:\n{named}{more}\n"
        "Remove or replace them, then run again."
    )


def find_bad_images(samples: Sequence[Sample], workers: int | str = "auto") -> list[tuple[Sample, str]]:
    """The samples that cannot be decoded, each with ``path: reason``, in the order given."""
    files = [sample for sample in samples if sample.pixels is None]
    threads = (os.cpu_count() or 1) if isinstance(workers, str) else max(1, workers)
    # Threads: Pillow's decoders let go of the interpreter lock.
    with ThreadPoolExecutor(threads) as pool:
        reasons = list(pool.map(_why_bad, files))
    return [(sample, reason) for sample, reason in zip(files, reasons, strict=True) if reason is not None]


def _why_bad(sample: Sample) -> str | None:
    try:
        open_image(sample)
    except DataError as error:
        return str(error)
    return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bits(image)
    if image.mode == "RGB":
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """One channel of 16 bits, of 32-bit integers within 16 bits, or of floats from 0 to 1."""
    values = np.asarray(image, dtype=np.float64)
    full_scale = 1.0 if image.mode == "F" else 65535.0
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= full_scale):
        raise ValueError(f"pixel values outside 0 to {full_scale:g}, which no rule brings to 8 bits")
    return Image.fromarray(np.round(values * (255 / full_scale)).astype(np.uint8))


def _reason(error: Exception, path: str) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, UnidentifiedImageError):
        return "is empty" if Path(path).stat().st_size == 0 else "is no image"
    return f"{error} ({type(error).__name__})"
