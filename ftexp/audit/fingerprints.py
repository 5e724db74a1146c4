"""Fingerprints of images: a few kilobytes per image that the audit works with instead of the pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ftexp.audit.cache import FingerprintCache
from ftexp.audit.look import THUMBNAIL_SIZE, Bad, Look, content_digest, look_at
from ftexp.data.digests import ContentDigests
from ftexp.data.loading.depth import Depth, Peak
from ftexp.data.loading.images import ImageLimits
from ftexp.data.samples import Sample

# The weights of red, green and blue in gray, in thousandths (ITU-R 601).
GREY = np.array([299, 587, 114], dtype=np.uint32)
# The least shorter side of images among which near duplicates are searched, in pixels. Smaller images have too little
# detail to distinguish a copy from another image of the same kind. Exact copies are found at any size.
MIN_SIDE_FOR_NEAR_DUPLICATES = 24
# The same for copies that were turned, framed or edited in other ways: smaller images have too few points that match.
# Smaller images have no features, either: of 1,440 copies planted among images of 28 to 48 px, hashes alone found all
# that hashes and features found.
MIN_SIDE_FOR_EDITED_COPIES = 64
CHUNK = 256


class FeatureExtractor(Protocol):
    """Computes feature vectors that are close to each other for similar images.

    Attributes:
        name: identifies the features in the cache.
        views: whether they are also wanted of the centre of each image and of the image in gray.
    """

    name: str
    views: bool

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
        views: those of the image's centre and of the image in gray, float16 [2, D]; empty if the extractor does not
            want them, and for images that are too small to be searched for edited copies.
    """

    content: str
    pixels: str
    thumbnail: npt.NDArray[np.uint8]
    side: int
    facts: dict[str, str | float]
    features: npt.NDArray[np.float16]
    views: npt.NDArray[np.float16]

    @property
    def depth(self) -> Depth:
        """What the file contains besides an RGB image of 8 bits."""
        peak = Peak(float(self.facts["peak"]), float(self.facts["full_scale"])) if "peak" in self.facts else None
        return Depth(peak, int(self.facts.get("pages", 1)))


# Why an image is bad.
Reason = str
Features = npt.NDArray[np.float16]
NUM_VIEWS = 2


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
    contents = list(pool.map(partial(content_digest, limits=limits, digests=digests), samples))
    keys = [
        "" if isinstance(content, Bad) else _cache_key(content, sample.white_level, extractor)
        for content, sample in zip(contents, samples, strict=True)
    ]
    known = cache.get([key for key in keys if key])
    new = {key: sample for key, sample in zip(keys, samples, strict=True) if key and key not in known}
    looks = dict(zip(new, pool.map(partial(look_at, limits=limits), new.values()), strict=True))
    bad = {key: look for key, look in looks.items() if isinstance(look, Bad)}
    good = {key: look for key, look in looks.items() if isinstance(look, Look)}
    fresh = _finish(good, extractor)
    # For small images in memory, computing a fingerprint again is faster than reading it from the cache.
    kept = {key: p for key, p in fresh.items() if new[key].pixels is None or len(p.features)}
    cache.put({key: _pack(fingerprint) for key, fingerprint in kept.items()})
    fresh |= {key: _unpack(key.partition(":")[0], value) for key, value in known.items()}
    seen: list[Fingerprint | Reason] = []
    for content, key in zip(contents, keys, strict=True):
        if isinstance(content, Bad):
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
    if extractor is None:
        return f"{digest}{level}"
    return f"{digest}{level}:{extractor.name}{', views' if extractor.views else ''}"


def _finish(looks: Mapping[str, Look], extractor: FeatureExtractor | None) -> dict[str, Fingerprint]:
    """Make the fingerprints, with features for images that are large enough to search for copies."""
    gray = {key: ((look.thumbnail @ GREY + 500) // 1000).astype(np.uint8) for key, look in looks.items()}
    features: dict[str, Features] = {}
    views: dict[str, Features] = {}
    if extractor is not None:
        large = [key for key, look in looks.items() if _side(look.facts) >= MIN_SIDE_FOR_EDITED_COPIES]
        features = dict(zip(large, _features(extractor, [looks[key].thumbnail for key in large]), strict=True))
        viewed = large if extractor.views else []
        in_gray = [np.repeat(gray[key][:, :, None], 3, axis=2) for key in viewed]
        both = (_features(extractor, images) for images in ([looks[key].centre for key in viewed], in_gray))
        views = {key: np.stack(pair) for key, *pair in zip(viewed, *both, strict=True)}
    nothing = np.zeros(0, np.float16)
    return {
        key: Fingerprint(
            look.content,
            look.pixels,
            gray[key],
            _side(look.facts),
            look.facts,
            features.get(key, nothing),
            views.get(key, np.zeros((NUM_VIEWS, 0), np.float16)),
        )
        for key, look in looks.items()
    }


def _features(extractor: FeatureExtractor, images: Sequence[npt.NDArray[np.uint8]]) -> list[Features]:
    return list(extractor(np.stack(images)).astype(np.float16)) if images else []


def _side(facts: Mapping[str, str | float]) -> int:
    return int(min(float(facts["width"]), float(facts["height"])))


def _pack(fingerprint: Fingerprint) -> bytes:
    num_features = fingerprint.features.size
    header = json.dumps({"pixels": fingerprint.pixels, "facts": fingerprint.facts, "features": num_features}).encode()
    arrays = (fingerprint.thumbnail.tobytes(), fingerprint.features.tobytes(), fingerprint.views.tobytes())
    return b"".join([len(header).to_bytes(4, "little"), header, *arrays])


def _unpack(content: str, packed: bytes) -> Fingerprint:
    end = 4 + int.from_bytes(packed[:4], "little")
    header = json.loads(packed[4:end])
    num_pixels = THUMBNAIL_SIZE**2
    thumbnail = np.frombuffer(packed, np.uint8, num_pixels, end).reshape(THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    numbers = np.frombuffer(packed, np.float16, offset=end + num_pixels)
    features, views = np.split(numbers, [header["features"]])
    facts = header["facts"]
    return Fingerprint(
        content, header["pixels"], thumbnail, _side(facts), facts, features, views.reshape(NUM_VIEWS, -1)
    )
