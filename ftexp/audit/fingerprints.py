"""A few kilobytes that stand for an image: what the audit keeps instead of the pixels."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from ftexp.audit.cache import FingerprintCache
from ftexp.data.digests import content_digest, pixel_digest
from ftexp.data.images import decode
from ftexp.data.samples import Sample

# Side of the grey thumbnail on which pairs are confirmed, in pixels.
THUMBNAIL_SIZE = 64
# Side of the RGB image that the feature extractor gets, in pixels.
FEATURE_IMAGE_SIZE = 96
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


def take_fingerprints(
    samples: Sequence[Sample], extractor: FeatureExtractor | None, cache: FingerprintCache, workers: int
) -> list[Fingerprint]:
    """Fingerprints of all samples, in order; images seen before, by content, are not decoded again."""
    found: list[Fingerprint] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(samples), CHUNK):
            found += _take_chunk(samples[start : start + CHUNK], extractor, cache, pool)
    return found


def _take_chunk(
    samples: Sequence[Sample], extractor: FeatureExtractor | None, cache: FingerprintCache, pool: ThreadPoolExecutor
) -> Iterator[Fingerprint]:
    suffix = "" if extractor is None else f":{extractor.name}"
    keys = [digest + suffix for digest in pool.map(content_digest, samples)]
    known = cache.get(keys)
    new = {key: sample for key, sample in zip(keys, samples, strict=True) if key not in known}
    parts = list(pool.map(_look, new.values()))
    features = _features([(facts, image) for _, _, facts, image in parts], extractor)
    fresh = {
        key: _pack(pixels, thumbnail, facts, vector)
        for key, (pixels, thumbnail, facts, _), vector in zip(new, parts, features, strict=True)
    }
    # Small images in memory are faster looked at again than fetched.
    in_files = {key for key, sample in new.items() if sample.pixels is None}
    worth_keeping = in_files | {key for key, vector in zip(new, features, strict=True) if len(vector)}
    cache.put({key: value for key, value in fresh.items() if key in worth_keeping})
    return (_unpack(key.partition(":")[0], (known | fresh)[key]) for key in keys)


def _features(
    images: Sequence[tuple[dict[str, str | float], npt.NDArray[np.uint8]]], extractor: FeatureExtractor | None
) -> list[npt.NDArray[np.float16]]:
    """Of those large enough for a search; nothing for the others."""
    features = [np.zeros(0, np.float16)] * len(images)
    large = [i for i, (facts, _) in enumerate(images) if _side(facts) >= MIN_SIDE_FOR_NEAR_DUPLICATES]
    if extractor is not None and large:
        vectors = extractor(np.stack([images[i][1] for i in large]))
        for i, vector in zip(large, vectors, strict=True):
            features[i] = vector.astype(np.float16)
    return features


def _side(facts: dict[str, str | float]) -> int:
    return int(min(float(facts["width"]), float(facts["height"])))


def _look(sample: Sample) -> tuple[str, npt.NDArray[np.uint8], dict[str, str | float], npt.NDArray[np.uint8]]:
    """Pixel digest, thumbnail, facts, and the small RGB image for the feature extractor."""
    facts: dict[str, str | float] = {}
    if sample.pixels is not None:
        image = Image.fromarray(sample.pixels)
    else:
        content = Path(sample.path).read_bytes()
        with Image.open(io.BytesIO(content)) as header:
            exif = header.getexif()
            facts = {"bytes": len(content), "format": str(header.format), "mode": header.mode}
            facts |= {name: str(exif[tag]) for tag, name in EXIF_FIELDS.items() if tag in exif}
        image = decode(io.BytesIO(content))
    facts |= {"width": image.width, "height": image.height}
    thumbnail = _shrink(image.convert("L"), THUMBNAIL_SIZE)
    small = _shrink(image, FEATURE_IMAGE_SIZE)
    return pixel_digest(np.asarray(image)), thumbnail, facts, small


def _shrink(image: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    """To a square; proportions do not matter, as copies keep them."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def _pack(
    pixels: str, thumbnail: npt.NDArray[np.uint8], facts: dict[str, str | float], features: npt.NDArray[np.float16]
) -> bytes:
    header = json.dumps({"pixels": pixels, "facts": facts}).encode()
    return b"".join([len(header).to_bytes(4, "little"), header, thumbnail.tobytes(), features.tobytes()])


def _unpack(content: str, packed: bytes) -> Fingerprint:
    end = 4 + int.from_bytes(packed[:4], "little")
    header = json.loads(packed[4:end])
    num_pixels = THUMBNAIL_SIZE**2
    thumbnail = np.frombuffer(packed, np.uint8, num_pixels, end).reshape(THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    features = np.frombuffer(packed, np.float16, offset=end + num_pixels)
    facts = header["facts"]
    return Fingerprint(content, header["pixels"], thumbnail, _side(facts), facts, features)
