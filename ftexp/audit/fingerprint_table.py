"""Fingerprints of images: a few kilobytes per image that the audit works with instead of the pixels.

Those of many images are in a file, because a million take 6 GB.
"""

from __future__ import annotations

import json
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import overload

import numpy as np
import numpy.typing as npt

from ftexp.audit.look import THUMBNAIL_SIZE
from ftexp.data.digests import DIGEST_BYTES
from ftexp.data.loading.depth import Depth, Peak
from ftexp.data.path_map import PathMap
from ftexp.data.samples import Sample

NUM_VIEWS = 2
NUM_PIXELS = THUMBNAIL_SIZE**2
# Fingerprints that take more are in a file instead of memory.
MAX_BYTES_IN_MEMORY = 128 * 2**20
# Of the number of a fingerprint.
ROW_BYTES = 8

Numbers = npt.NDArray[np.int64]


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


def shorter_side(facts: Mapping[str, str | float]) -> int:
    """Of an image with these facts, in pixels."""
    return int(min(float(facts["width"]), float(facts["height"])))


def pack(fingerprint: Fingerprint) -> bytes:
    """The bytes of a fingerprint that are stored: all but the digest of the file, which is their key."""
    num_features = fingerprint.features.size
    header = json.dumps({"pixels": fingerprint.pixels, "facts": fingerprint.facts, "features": num_features}).encode()
    arrays = (fingerprint.thumbnail.tobytes(), fingerprint.features.tobytes(), fingerprint.views.tobytes())
    return b"".join([len(header).to_bytes(4, "little"), header, *arrays])


def unpack(content: str, packed: bytes) -> Fingerprint:
    """The fingerprint of the file with this digest."""
    end = 4 + int.from_bytes(packed[:4], "little")
    header = json.loads(packed[4:end])
    thumbnail = np.frombuffer(packed, np.uint8, NUM_PIXELS, end).reshape(THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    numbers = np.frombuffer(packed, np.float16, offset=end + NUM_PIXELS)
    features, views = np.split(numbers, [header["features"]])
    facts = header["facts"]
    return Fingerprint(
        content, header["pixels"], thumbnail, shorter_side(facts), facts, features, views.reshape(NUM_VIEWS, -1)
    )


class _Records:
    """Bytes that are written once, one after the other, and read by their place."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(MAX_BYTES_IN_MEMORY)  # noqa: SIM115  (it lives as long as this)
        self._lock, self._size = Lock(), 0
        weakref.finalize(self, self._file.close)

    def append(self, record: bytes) -> int:
        with self._lock:
            self._file.seek(self._size)
            self._file.write(record)
            self._size += len(record)
            return self._size - len(record)

    def read(self, start: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(start)
            return self._file.read(size)


class Fingerprints(Sequence[Fingerprint]):
    """The fingerprints of N images in an order.

    Args:
        fingerprints: the first ones.
    """

    def __init__(self, fingerprints: Iterable[Fingerprint] = ()) -> None:
        self._records = _Records()
        self._contents, self._pixels = bytearray(), bytearray()
        # Where each record starts and its thumbnail starts, how long the record is, and how many features it has.
        self._starts, self._thumbnails, self._sizes, self._features = (array("q") for _ in range(4))
        self._sides = array("q")
        for one in fingerprints:
            self.append(one)

    def append(self, one: Fingerprint) -> None:
        """Add one."""
        record = pack(one)
        start = self._records.append(record)
        self._starts.append(start)
        self._thumbnails.append(start + 4 + int.from_bytes(record[:4], "little"))
        self._sizes.append(len(record))
        self._features.append(one.features.size)
        self._sides.append(one.side)
        self._contents += bytes.fromhex(one.content)
        self._pixels += bytes.fromhex(one.pixels)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, at: int) -> Fingerprint: ...
    @overload
    def __getitem__(self, at: slice) -> Fingerprints: ...
    def __getitem__(self, at: int | slice) -> Fingerprint | Fingerprints:
        if isinstance(at, slice):
            return self.take(range(len(self))[at])
        return unpack(self.content(at), self._records.read(self._starts[at], self._sizes[at]))

    def take(self, numbers: Iterable[int]) -> Fingerprints:
        """Those with these numbers, in this order; nothing is read."""
        chosen, rows = Fingerprints(), np.fromiter(numbers, np.int64)
        chosen._records = self._records
        for name in ("_starts", "_thumbnails", "_sizes", "_features", "_sides"):
            setattr(chosen, name, array("q", np.array(getattr(self, name), np.int64)[rows].tobytes()))
        for name in ("_contents", "_pixels"):
            setattr(chosen, name, bytearray(_digests(getattr(self, name))[rows].tobytes()))
        return chosen

    def content(self, number: int) -> str:
        """The digest of the bytes of an image's file."""
        return self._contents[number * DIGEST_BYTES :][:DIGEST_BYTES].hex()

    @property
    def pictures(self) -> Numbers:
        """A number for each image, equal where the pixels are, int64 [N]."""
        number: Numbers = np.unique(_digests(self._pixels), return_inverse=True)[1]
        return number

    @property
    def sides(self) -> Numbers:
        """The shorter side of each image, in pixels, int64 [N]."""
        return np.array(self._sides, np.int64)

    @property
    def have_features(self) -> npt.NDArray[np.bool_]:
        """Which images have features, bool [N]."""
        return np.array(self._features, np.int64) > 0

    @property
    def have_views(self) -> npt.NDArray[np.bool_]:
        """Which images have features of their views, bool [N]."""
        starts, thumbnails, sizes, features = (
            np.array(column, np.int64) for column in (self._starts, self._thumbnails, self._sizes, self._features)
        )
        has_more: npt.NDArray[np.bool_] = starts + sizes > thumbnails + NUM_PIXELS + 2 * features
        return has_more

    def thumbnails(self, numbers: Iterable[int]) -> npt.NDArray[np.uint8]:
        """The thumbnails of M images, uint8 [M, 64, 64]."""
        read = bytearray().join(self._records.read(self._thumbnails[number], NUM_PIXELS) for number in numbers)
        return np.frombuffer(read, np.uint8).reshape(-1, THUMBNAIL_SIZE, THUMBNAIL_SIZE)

    def features(self, numbers: Iterable[int]) -> npt.NDArray[np.float16]:
        """The features of M images that have some, and of their views if they have those, float16 [M, 1 or 3, D]."""
        rows = []
        for number in numbers:
            start = self._thumbnails[number] + NUM_PIXELS
            read = self._records.read(start, self._starts[number] + self._sizes[number] - start)
            rows.append(np.frombuffer(read, np.float16).reshape(-1, self._features[number]))
        return np.stack(rows) if rows else np.zeros((0, 1, 0), np.float16)


@dataclass(frozen=True, slots=True)
class FingerprintsByPath:
    """The fingerprints of all images, from one decoding of each.

    Attributes:
        prints: the fingerprints.
        rows: path -> its number among the fingerprints.
        seconds: the time that it took.
    """

    prints: Fingerprints
    rows: PathMap
    seconds: float

    @classmethod
    def of_samples(cls, samples: Sequence[Sample], prints: Fingerprints, seconds: float) -> FingerprintsByPath:
        """The fingerprints of samples in the same order."""
        rows = PathMap(ROW_BYTES)
        for row, sample in enumerate(samples):
            rows.put(sample.path, row.to_bytes(ROW_BYTES))
        return cls(prints, rows, seconds)

    def of(self, samples: Sequence[Sample]) -> Fingerprints:
        """The fingerprints of these samples, in their order."""
        return self.prints.take(map(self._row, samples))

    def _row(self, sample: Sample) -> int:
        row = self.rows.get(sample.path)
        assert row is not None, f"{sample.path} was not looked at"
        return int.from_bytes(row)


def _digests(column: bytearray) -> npt.NDArray[np.void]:
    return np.frombuffer(bytes(column), f"V{DIGEST_BYTES}")
