"""Fingerprints of images: a few kilobytes per image that the audit works with instead of the pixels."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from ftexp.audit.cache import FingerprintCache
from ftexp.data.digests import ContentDigests, bytes_digest, pixel_digest
from ftexp.data.loading.decoding import decode_opened, open_lazily
from ftexp.data.loading.depth import Depth, Peak
from ftexp.data.loading.images import ImageLimits, why_unreadable
from ftexp.data.samples import Sample

# The side of the RGB thumbnail for the feature extractor, and of the gray one for comparing pairs, in pixels.
THUMBNAIL_SIZE = 64
# The weights of red, green and blue in gray, in thousandths (ITU-R 601).
GREY = np.array([299, 587, 114], dtype=np.uint32)
# The least shorter side of images among which near duplicates are searched, in pixels. Smaller images have too little
# detail to distinguish a copy from another image of the same kind. Exact copies are found at any size.
MIN_SIDE_FOR_NEAR_DUPLICATES = 24
CHUNK = 256
# EXIF tags that can differ between classes for reasons that have nothing to do with the content of the image.
EXIF_FIELDS = {0x010F: "exif_make", 0x0110: "exif_model", 0x0131: "exif_software", 0x0112: "exif_orientation"}


class FeatureExtractor(Protocol):
    """Computes feature vectors that are close to each other for similar images.

    Attributes:
        name: identifies the features in the cache.
    """

    name: str

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute the features, float32 [N, D], of images, uint8 [N, S, S, 3]."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the audit keeps of one image.

    Attributes:
        content: the digest of the file's bytes.
        pixels: the digest of the decoded image, which is the same for one image in two lossless files.
        thumbnail: the whole image resized to a gray square, uint8 [64, 64], without keeping its aspect ratio.
        side: the length of the shorter side of the image, in pixels.
        facts: metadata: size in bytes, width, height, format, EXIF fields.
        features: the features of the pretrained network, float16 [D]; empty without an extractor and for small images.
    """

    content: str
    pixels: str
    thumbnail: npt.NDArray[np.uint8]
    side: int
    facts: dict[str, str | float]
    features: npt.NDArray[np.float16]

    @property
    def depth(self) -> Depth:
        """What the file contains besides an RGB image of 8 bits."""
        peak = Peak(float(self.facts["peak"]), float(self.facts["full_scale"])) if "peak" in self.facts else None
        return Depth(peak, int(self.facts.get("pages", 1)))


# Why an image is bad.
Reason = str


def look_at_images(
    samples: Sequence[Sample],
    extractor: FeatureExtractor | None,
    cache: FingerprintCache,
    workers: int,
    limits: ImageLimits | None = None,
    digests: ContentDigests | None = None,
) -> list[Fingerprint | Reason]:
    """Compute the fingerprints of samples; each image is decoded at most once.

    Args:
        samples: all samples.
        extractor: computes features; None: fingerprints have no features.
        cache: fingerprints of earlier audits.
        workers: the number of threads.
        limits: the limits above which an image is bad; None: the default limits.
        digests: remembers the digest of every file.

    Returns:
        For every sample in its order the fingerprint, or the reason why it is a bad image.
    """
    limits, digests = limits or ImageLimits(), digests or ContentDigests()
    seen: list[Fingerprint | Reason] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(samples), CHUNK):
            seen += _look_at_chunk(samples[start : start + CHUNK], extractor, cache, pool, limits, digests)
    return seen


def _look_at_chunk(
    samples: Sequence[Sample],
    extractor: FeatureExtractor | None,
    cache: FingerprintCache,
    pool: ThreadPoolExecutor,
    limits: ImageLimits,
    digests: ContentDigests,
) -> list[Fingerprint | Reason]:
    contents = list(pool.map(partial(_content, limits=limits, digests=digests), samples))
    keys = [
        "" if isinstance(content, _Bad) else _cache_key(content, sample.white_level, extractor)
        for content, sample in zip(contents, samples, strict=True)
    ]
    known = cache.get([key for key in keys if key])
    new = {key: sample for key, sample in zip(keys, samples, strict=True) if key and key not in known}
    looks = dict(zip(new, pool.map(partial(_look, limits=limits), new.values()), strict=True))
    bad = {key: look for key, look in looks.items() if isinstance(look, _Bad)}
    good = {key: look for key, look in looks.items() if isinstance(look, _Look)}
    fresh = _finish(good, extractor)
    # For small images in memory, computing a fingerprint again is faster than reading it from the cache.
    kept = {key: p for key, p in fresh.items() if new[key].pixels is None or len(p.features)}
    cache.put({key: _pack(fingerprint) for key, fingerprint in kept.items()})
    fresh |= {key: _unpack(key.partition(":")[0], value) for key, value in known.items()}
    seen: list[Fingerprint | Reason] = []
    for content, key in zip(contents, keys, strict=True):
        if isinstance(content, _Bad):
            seen.append(content.reason)
        elif key in bad:
            seen.append(bad[key].reason)
        else:
            # The limits can be stricter than when the fingerprint was computed.
            facts = fresh[key].facts
            seen.append(limits.exceeded_by_pixels(int(facts["width"]), int(facts["height"])) or fresh[key])
    return seen


def _cache_key(digest: str, white_level: float | None, extractor: FeatureExtractor | None) -> str:
    """A text that identifies everything that a fingerprint depends on; the content comes first, up to a colon."""
    level = "" if white_level is None else f":white {white_level!r}"
    return f"{digest}{level}" if extractor is None else f"{digest}{level}:{extractor.name}"


@dataclass(frozen=True, slots=True)
class _Bad:
    reason: str


@dataclass(frozen=True, slots=True)
class _Look:
    """The result of decoding an image; the thumbnail is RGB."""

    content: str
    pixels: str
    facts: dict[str, str | float]
    thumbnail: npt.NDArray[np.uint8]


def _content(sample: Sample, limits: ImageLimits, digests: ContentDigests) -> str | _Bad:
    """The digest of the file, or of the pixels if there is no file."""
    if sample.pixels is not None:
        return pixel_digest(sample.pixels)
    try:
        too_large = limits.exceeded_by_file(os.stat(sample.path).st_size)
        return _Bad(too_large) if too_large else digests.of_file(sample.path)
    except OSError as error:
        return _Bad(why_unreadable(error, sample.path))


def _look(sample: Sample, limits: ImageLimits) -> _Look | _Bad:
    """Decode an image once, and compute the parts of its fingerprint."""
    facts: dict[str, str | float] = {}
    try:
        if sample.pixels is not None:
            content, image = "", Image.fromarray(sample.pixels)
        else:
            encoded = Path(sample.path).read_bytes()
            content = bytes_digest(encoded)
            with open_lazily(io.BytesIO(encoded), sample.path) as file:
                too_large = limits.exceeded_by_pixels(file.width, file.height)
                if too_large:
                    return _Bad(too_large)
                facts = {"bytes": len(encoded), "format": str(file.format), "mode": file.mode}
                decoded = decode_opened(file, sample.white_level)
                image = decoded.image
                # After the pixels, because a PNG can have its tags at the end, and reading them earlier would decode
                # the image twice.
                facts |= _exif_facts(file) | _depth_facts(decoded.depth)
    except Exception as error:  # on damaged bytes, Pillow raises many kinds of exceptions
        return _Bad(why_unreadable(error, sample.path))
    facts |= {"width": image.width, "height": image.height}
    pixels = pixel_digest(np.asarray(image))
    # The aspect ratio does not matter, as copies have the same one. A large image is first reduced by a whole factor.
    size = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    return _Look(content or pixels, pixels, facts, np.asarray(small))


def _exif_facts(file: Image.Image) -> dict[str, str | float]:
    facts: dict[str, str | float] = {}
    try:
        exif = file.getexif()
    except Exception:  # the tags are damaged, but the image is not
        return facts
    for tag, name in EXIF_FIELDS.items():
        with contextlib.suppress(Exception):  # one tag is damaged, but others are not
            if tag in exif:
                facts[name] = str(exif[tag])
    return facts


def _depth_facts(depth: Depth) -> dict[str, str | float]:
    facts: dict[str, str | float] = {} if depth.num_pages == 1 else {"pages": depth.num_pages}
    return facts if depth.peak is None else facts | {"peak": depth.peak.largest, "full_scale": depth.peak.full_scale}


def _finish(looks: Mapping[str, _Look], extractor: FeatureExtractor | None) -> dict[str, Fingerprint]:
    """Make the fingerprints, with features for images that are large enough to search for near duplicates."""
    large = [key for key, look in looks.items() if _side(look.facts) >= MIN_SIDE_FOR_NEAR_DUPLICATES]
    features = {}
    if extractor is not None and large:
        vectors = extractor(np.stack([looks[key].thumbnail for key in large])).astype(np.float16)
        features = dict(zip(large, vectors, strict=True))
    nothing = np.zeros(0, np.float16)
    return {
        key: Fingerprint(
            look.content,
            look.pixels,
            ((look.thumbnail @ GREY + 500) // 1000).astype(np.uint8),
            _side(look.facts),
            look.facts,
            features.get(key, nothing),
        )
        for key, look in looks.items()
    }


def _side(facts: Mapping[str, str | float]) -> int:
    return int(min(float(facts["width"]), float(facts["height"])))


def _pack(fingerprint: Fingerprint) -> bytes:
    header = json.dumps({"pixels": fingerprint.pixels, "facts": fingerprint.facts}).encode()
    arrays = (fingerprint.thumbnail.tobytes(), fingerprint.features.tobytes())
    return b"".join([len(header).to_bytes(4, "little"), header, *arrays])


def _unpack(content: str, packed: bytes) -> Fingerprint:
    end = 4 + int.from_bytes(packed[:4], "little")
    header = json.loads(packed[4:end])
    num_pixels = THUMBNAIL_SIZE**2
    thumbnail = np.frombuffer(packed, np.uint8, num_pixels, end).reshape(THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    features = np.frombuffer(packed, np.float16, offset=end + num_pixels)
    facts = header["facts"]
    return Fingerprint(content, header["pixels"], thumbnail, _side(facts), facts, features)
