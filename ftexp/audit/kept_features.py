"""The local features of the images that were looked at last, so that an image is not searched for each of its pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ftexp.audit.local_features import LocalFeatures

# The numbers of two samples.
Pair = tuple[int, int]


class KeptFeatures:
    """Keeps the local features of the images that were looked at last.

    Args:
        find: function from the number of an image to its features; None for an image that cannot be read.
        pool: finds the features of several images at once.
        most: images that are kept.
    """

    def __init__(self, find: Callable[[int], LocalFeatures | None], pool: ThreadPoolExecutor, most: int) -> None:
        self._find, self._pool, self._most = find, pool, most
        self._features: dict[int, LocalFeatures | None] = {}

    def look_at(self, pairs: Sequence[Pair]) -> None:
        """Find and keep the features of all images of these pairs, unless they are kept already."""
        numbers = {number for pair in pairs for number in pair}
        if len(self._features.keys() | numbers) > self._most:
            self._features = {number: one for number, one in self._features.items() if number in numbers}
        missing = sorted(numbers - self._features.keys())
        self._features |= dict(zip(missing, self._pool.map(self._find, missing), strict=True))

    def each_of(self, numbers: Sequence[int]) -> list[LocalFeatures | None]:
        """The features of each of these images. Those that are not kept are found now, and are not kept afterwards."""
        return list(self._pool.map(lambda number: self._features.get(number) or self._find(number), numbers))

    def of(self, pair: Pair) -> tuple[LocalFeatures, LocalFeatures] | None:
        """The features of both images of a pair; None if one of them cannot be read."""
        first, second = (self._features[number] for number in pair)
        return None if first is None or second is None else (first, second)
