"""Computes the fingerprints of images, from one decoding of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ftexp.audit.cache import FingerprintCache
from ftexp.audit.fingerprint_table import NUM_VIEWS, Fingerprint, Fingerprints, pack, shorter_side, unpack
from ftexp.audit.look import Bad, Look, content_digest, look_at
from ftexp.data.digests import ContentDigests
from ftexp.data.loading.depth import PLAIN, Depth
from ftexp.data.loading.limits import ImageLimits
from ftexp.data.samples import Sample
from ftexp.progress_lines import ProgressLines

# The weights of red, green and blue in gray, in thousandths (ITU-R 601).
GREY = np.array([299, 587, 114], dtype=np.uint32)
# The least shorter side of images among which copies are searched that were turned, framed or edited in other ways, in
# pixels: smaller images have too few points that match.
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


# Why an image is bad.
Reason = str
Features = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of images.

    Attributes:
        prints: the fingerprints of those that can be decoded, in their order.
        bad: the number of each other image, and why it is bad.
        depths: what the files of decoded images contain besides an RGB image of 8 bits, where there is something.
    """

    prints: Fingerprints
    bad: dict[int, Reason]
    depths: list[Depth]


def look_at_images(
    samples: Sequence[Sample],
    extractor: FeatureExtractor | None,
    cache: FingerprintCache,
    workers: int,
    limits: ImageLimits | None = None,
    digests: ContentDigests | None = None,
) -> Seen:
    """Compute the fingerprints of samples; each image is decoded at most once.

    Args:
        samples: all samples.
        extractor: computes features; None: fingerprints have no features.
        cache: fingerprints of earlier audits.
        workers: the number of threads.
        limits: the limits above which an image is bad; None: the default limits.
        digests: remembers the digest of every file.
    """
    limits, digests = limits or ImageLimits(), digests or ContentDigests()
    seen, progress = Seen(Fingerprints(), {}, []), ProgressLines("audit", "looked at", "images", len(samples))
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(samples), CHUNK):
            chunk = _look_at_chunk(samples[start : start + CHUNK], extractor, cache, pool, limits, digests)
            for number, one in enumerate(chunk, start):
                if isinstance(one, Fingerprint):
                    seen.prints.append(one)
                    seen.depths.extend([one.depth] if one.depth != PLAIN else [])
                else:
                    seen.bad[number] = one
            progress.at(start + len(chunk))
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
    cache.put({key: pack(fingerprint) for key, fingerprint in kept.items()})
    fresh |= {key: unpack(key.partition(":")[0], value) for key, value in known.items()}
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
        large = [key for key, look in looks.items() if shorter_side(look.facts) >= MIN_SIDE_FOR_EDITED_COPIES]
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
            shorter_side(look.facts),
            look.facts,
            features.get(key, nothing),
            views.get(key, np.zeros((NUM_VIEWS, 0), np.float16)),
        )
        for key, look in looks.items()
    }


def _features(extractor: FeatureExtractor, images: Sequence[npt.NDArray[np.uint8]]) -> list[Features]:
    return list(extractor(np.stack(images)).astype(np.float16)) if images else []
