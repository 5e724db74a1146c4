"""Finds pairs of images that can be near duplicates, by a perceptual hash and without comparing pixels.

The hash lacks its last step: it is the low frequencies of the cosine transform of a thumbnail, as numbers instead of
bits. The hashes of windows of one image and of their mirror images are compared with the hashes of the other images, so
that cropped and flipped copies are found.

Source: the DCT hash is that of imagehash.phash (Zauner 2010), here computed for many windows at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.neighbours import Found, Neighbours, as_bytes
from ftexp.audit.pairs import Numbers, Wanted, unique_pairs
from ftexp.progress_lines import ProgressLines

# The number of neighbours per image, and their least similarity. Of 3,600 copies planted in three datasets, none had a
# similarity below 0.91.
NUM_NEIGHBOURS = 2
MIN_HASH_LIKENESS = 0.8
# The number of neighbours of each window, which is larger because many images can be crops of one image.
NEIGHBOURS_OF_A_WINDOW = 4
# The number of frequencies per direction, and the side that a window is resized to before the transform, in pixels.
NUM_FREQUENCIES = 6
WINDOW_SIDE = 32
# Side length and position (0: left or top, 1: right or bottom) of the windows, as fractions; first the whole image.
WINDOWS = [
    (1.0, 0.5, 0.5),
    *((0.9, x, y) for x, y in ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))),
    (0.8, 0.5, 0.5),
]
# The mean and the spread of each frequency are computed from at most so many images.
MAX_STANDARD = 16_384
# The number of images whose windows are transformed, and searched, at a time.
CHUNK, SEARCHED_AT_ONCE = 1_024, 4_096

Array = npt.NDArray[np.float32]


class HashCandidates:
    """The hashes of images.

    Args:
        prints: the fingerprints of all images.
        numbers: which of them to compare, int64 [N].
    """

    def __init__(self, prints: Fingerprints, numbers: Numbers) -> None:
        self._prints, self._numbers = prints, numbers
        self._standard = _Standard(self._raw(numbers[:: -(-len(numbers) // MAX_STANDARD)], WINDOWS[:1])[:, 0])
        wholes = [
            as_bytes(torch.from_numpy(self._hashes(numbers[start : start + CHUNK], WINDOWS[:1])[:, 0]))
            for start in range(0, len(numbers), CHUNK)
        ]
        self._neighbours = Neighbours(torch.cat(wholes), numbers)

    def pairs(self, wanted: Sequence[Wanted], queries: Numbers | None = None) -> list[Numbers]:
        """Find the pairs of images whose pixels should be compared.

        Args:
            wanted: which pairs to search; each condition gets a search of its own.
            queries: one image of each pair is among these, int64 [Q]; None: all.

        Returns:
            For each of ``wanted``, pairs (i, j) with i < j, int64 [P, 2].
        """
        queries = self._numbers if queries is None else np.intersect1d(queries, self._numbers)
        progress = ProgressLines("audit", "compared the hashes of", "images", len(queries))
        found: list[list[Found]] = [[] for _ in wanted]
        for start in range(0, len(queries), SEARCHED_AT_ONCE):
            of_chunk = self._search(queries[start : start + SEARCHED_AT_ONCE], wanted)
            for parts, one in zip(found, of_chunk, strict=True):
                parts.append(one.nearest(0, 2 * NEIGHBOURS_OF_A_WINDOW))
            progress.at(start)
        joined = [Found.joined(parts) for parts in found]
        return [unique_pairs(*(one.nearest(side, NUM_NEIGHBOURS).pairs for side in (0, 1))) for one in joined]

    def _search(self, numbers: Numbers, wanted: Sequence[Wanted]) -> list[Found]:
        hashes = self._hashes(numbers, WINDOWS)
        both = np.concatenate([hashes, hashes * np.where(IS_ODD, np.float32(-1), np.float32(1))], axis=1)
        owners = np.repeat(numbers, both.shape[1])
        queries = torch.from_numpy(both.reshape(len(owners), -1))
        return self._neighbours.search(queries, owners, wanted, NEIGHBOURS_OF_A_WINDOW, MIN_HASH_LIKENESS)

    def _hashes(self, numbers: Numbers, windows: Sequence[tuple[float, float, float]]) -> Array:
        return self._standard(self._raw(numbers, windows))

    def _raw(self, numbers: Numbers, windows: Sequence[tuple[float, float, float]]) -> Array:
        return np.concatenate(
            [
                _transform(self._prints.thumbnails(numbers[start : start + CHUNK]), windows)
                for start in range(0, len(numbers), CHUNK)
            ]
        )


# Mirroring an image changes the sign of its odd horizontal frequencies. The first frequency, the brightness, is left
# out.
IS_ODD = np.tile(np.arange(NUM_FREQUENCIES) % 2 == 1, NUM_FREQUENCIES)[1:]


class _Standard:
    """Standardises each frequency over all images and their mirror images (so that the mean of an odd one is 0),
    because frequencies that all images share do not distinguish them.

    Args:
        hashes: of whole images, [N, D].
    """

    def __init__(self, hashes: Array) -> None:
        whole = hashes.astype(np.float64)
        centre = np.where(IS_ODD, 0, whole.mean(axis=0))
        self._centre = centre.astype(np.float32)
        self._spread = (np.sqrt(((whole - centre) ** 2).mean(axis=0)) + 1e-3).astype(np.float32)

    def __call__(self, hashes: Array) -> Array:
        """The standardised frequencies of windows, scaled to length 1, [N, W, D]."""
        standard: Array = (hashes - self._centre) / self._spread
        standard /= np.maximum(np.linalg.norm(standard, axis=-1, keepdims=True), 1e-12)
        return standard


def _transform(thumbnails: npt.NDArray[np.uint8], windows: Sequence[tuple[float, float, float]]) -> Array:
    """The frequencies of windows of images, uint8 [N, S, S], without the brightness, scaled to length 1, [N, W, D]."""
    images, side = thumbnails.astype(np.float32), thumbnails.shape[1]
    operators = {line: _operator(*line, side) for scale, x, y in windows for line in ((scale, x), (scale, y))}
    # Windows with the same vertical range share this product.
    down = {line: operators[line] @ images for line in {(scale, y) for scale, _, y in windows}}
    frequencies = [(down[scale, y] @ operators[scale, x].T).reshape(len(images), -1)[:, 1:] for scale, x, y in windows]
    hashes: Array = np.stack(frequencies, axis=1)
    # This removes the contrast, which scales all frequencies by one factor.
    hashes /= np.maximum(np.linalg.norm(hashes, axis=2, keepdims=True), 1e-6)
    return hashes


def _operator(scale: float, position: float, side: int) -> Array:
    """The matrix that cuts a range out of ``side`` pixels, resizes it by area and computes its low frequencies."""
    start = (1 - scale) * side * position
    edges = start + np.arange(WINDOW_SIDE + 1) * scale * side / WINDOW_SIDE
    pixel = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    area = np.clip(overlap, 0, None) / (scale * side / WINDOW_SIDE)
    # The orthonormal discrete cosine transform.
    frequency = np.arange(NUM_FREQUENCIES)[:, None]
    transform = np.cos(np.pi * frequency * (np.arange(WINDOW_SIDE) + 0.5) / WINDOW_SIDE) * np.sqrt(2 / WINDOW_SIDE)
    transform[0] /= np.sqrt(2)
    operator: Array = (transform @ area).astype(np.float32)
    return operator
