"""A few kilobytes that stand for an image: what the audit keeps instead of the pixels."""

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

# Side of the RGB image that the feature extractor gets, and of the grey one on which pairs are confirmed, in pixels.
THUMBNAIL_SIZE = 64
# Red, green and blue in grey, in thousandths (ITU-R 601).
GREY = np.array([299, 587, 114], dtype=np.uint32)
# Below this shorter side (of the smaller of the two) an image has too little detail to tell a copy from another picture
# of the same kind: near duplicates are looked for from here on. Exact copies are found at any size.
MIN_SIDE_FOR_NEAR_DUPLICATES = 24
CHUNK = 256
# EXIF tags that may differ between classes for reasons that have nothing to do with what is shown.
EXIF_FIELDS = {0x010F: "exif_make", 0x0110: "exif_model", 0x0131: "exif_software", 0x0112: "exif_orientation"}


class FeatureExtractor(Protocol):
    """Turns images into vectors whose neighbours look alike."""

    name: str

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Args: N x side x side x 3. Returns: N x features."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One image.

    Attributes:
        content: digest of the file's bytes.
        pixels: digest of the decoded image: equal for the same picture in two lossless files.
        thumbnail: uint8 64 x 64, grey, the whole image whatever its proportions.
        side: length of the shorter side, in pixels.
        facts: what is known without looking at the picture: size in bytes, width, height, format, EXIF fields.
        features: float16, from the pretrained network; empty without one, and for images too small.
    """

    content: str
    pixels: str
    thumbnail: npt.NDArray[np.uint8]
    side: int
    facts: dict[str, str | float]
    features: npt.NDArray[np.float16]

    @property
    def depth(self) -> Depth:
        """What the file holds beyond an RGB image of 8 bits."""
        peak = Peak(float(self.facts["peak"]), float(self.facts["full_scale"])) if "peak" in self.facts else None
        return Depth(peak, int(self.facts.get("pages", 1)))


# Why an image cannot be looked at.
Reason = str


def look_at_images(
    samples: Sequence[Sample],
    extractor: FeatureExtractor | None,
    cache: FingerprintCache,
    workers: int,
    limits: ImageLimits | None = None,
    digests: ContentDigests | None = None,
) -> list[Fingerprint | Reason]:
    """Of every sample, in order, its fingerprint, or the reason why it is a bad image; each is decoded once at most.

    Args:
        digests: gets the content of every file.
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
    # Small images in memory are faster looked at again than fetched.
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
            # Limits may be stricter than when it was seen first.
            facts = fresh[key].facts
            seen.append(limits.exceeded_by_pixels(int(facts["width"]), int(facts["height"])) or fresh[key])
    return seen


def _cache_key(digest: str, white_level: float | None, extractor: FeatureExtractor | None) -> str:
    """All that a fingerprint depends on; the content comes first, up to a colon."""
    level = "" if white_level is None else f":white {white_level!r}"
    return f"{digest}{level}" if extractor is None else f"{digest}{level}:{extractor.name}"


@dataclass(frozen=True, slots=True)
class _Bad:
    reason: str


@dataclass(frozen=True, slots=True)
class _Look:
    """What one decoding gives; the thumbnail in RGB."""

    content: str
    pixels: str
    facts: dict[str, str | float]
    thumbnail: npt.NDArray[np.uint8]


def _content(sample: Sample, limits: ImageLimits, digests: ContentDigests) -> str | _Bad:
    """Digest of the file, or of the pixels where there is none."""
    if sample.pixels is not None:
        return pixel_digest(sample.pixels)
    try:
        too_large = limits.exceeded_by_file(os.stat(sample.path).st_size)
        return _Bad(too_large) if too_large else digests.of_file(sample.path)
    except OSError as error:
        return _Bad(why_unreadable(error, sample.path))


def _look(sample: Sample, limits: ImageLimits) -> _Look | _Bad:
    """Decode once, and keep what stands for the image."""
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
                # After the pixels: of a PNG the tags may come last, and asking earlier would decode it twice.
                facts |= _exif_facts(file) | _depth_facts(decoded.depth)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        return _Bad(why_unreadable(error, sample.path))
    facts |= {"width": image.width, "height": image.height}
    pixels = pixel_digest(np.asarray(image))
    # To a square; proportions do not matter, as copies keep them. A large picture is first reduced by a whole number.
    size = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    return _Look(content or pixels, pixels, facts, np.asarray(small))


def _exif_facts(file: Image.Image) -> dict[str, str | float]:
    facts: dict[str, str | float] = {}
    try:
        exif = file.getexif()
    except Exception:  # damaged tags beside a good picture
        return facts
    for tag, name in EXIF_FIELDS.items():
        with contextlib.suppress(Exception):  # one damaged tag beside good ones
            if tag in exif:
                facts[name] = str(exif[tag])
    return facts


def _depth_facts(depth: Depth) -> dict[str, str | float]:
    facts: dict[str, str | float] = {} if depth.num_pages == 1 else {"pages": depth.num_pages}
    return facts if depth.peak is None else facts | {"peak": depth.peak.largest, "full_scale": depth.peak.full_scale}


def _finish(looks: Mapping[str, _Look], extractor: FeatureExtractor | None) -> dict[str, Fingerprint]:
    """Fingerprints, with the features of those that are large enough for a search."""
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
