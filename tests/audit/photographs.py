"""Images that look like photographs to the audit: smooth shapes with fine, unique detail."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ftexp.audit.cache import FingerprintCache
from ftexp.audit.duplicates import near_duplicate_findings, near_duplicates
from ftexp.audit.findings import Finding
from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.fingerprints import FeatureExtractor, look_at_images
from ftexp.data.samples import Sample

SIDE = 120


def photograph(seed: int) -> Image.Image:
    """Noise at four scales: no two seeds alike in shape or in detail."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        for size in (4, 8, 16, 40)
    ]
    return Image.fromarray(np.mean([np.asarray(layer) for layer in layers], axis=0).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 90) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def crop_10_percent(image: Image.Image) -> Image.Image:
    width, height = image.size
    left, top = width // 20, height // 15
    return image.crop((left, top, left + round(0.9 * width), top + round(0.9 * height)))


def fingerprints_of(
    samples: Sequence[Sample],
    extractor: FeatureExtractor | None = None,
    cache: FingerprintCache | None = None,
    workers: int = 1,
) -> Fingerprints:
    """Of images all of which are good."""
    seen = look_at_images(samples, extractor, cache or FingerprintCache(None), workers)
    assert seen.bad == {}
    return seen.prints


def save(
    folder: Path, name: str, image: Image.Image, split: str = "train", label: str = "a", **options: object
) -> Sample:
    """Write an image and return it as a sample."""
    path = folder / name
    image.save(path, **options)
    return Sample(str(path), label, split)


PLANTED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg 50": lambda image: jpeg(image, 50),
    "half size": lambda image: jpeg(image.resize((max(1, image.width // 2), max(1, image.height // 2)))),
    "flipped": lambda image: jpeg(ImageOps.mirror(image)),
    "cropped by 10 %": lambda image: jpeg(crop_10_percent(image)),
    "20 % brighter": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(1.2)),
}


def find_near_duplicates(samples: Sequence[Sample], prints: Fingerprints) -> list[Finding]:
    """The near duplicates in two splits."""
    return near_duplicate_findings(samples, near_duplicates(samples, prints)[0].near)
