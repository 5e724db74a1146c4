"""Finds pairs of images that can be near duplicates, without comparing pixels.

It searches for nearest neighbours by two descriptors, with blocks of a matrix product:

- a perceptual hash without its last step: the low frequencies of the cosine transform of a thumbnail, as numbers
  instead of bits. The hash of one image is compared with the hashes of windows of the other image and of their mirror
  images, so that cropped and flipped copies are found;
- features of a pretrained network.

Source: the DCT hash is that of imagehash.phash (Zauner 2010), here computed for many windows at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dct

from ftexp.audit.pairs import Allowed
from ftexp.audit.parallel import map_batches

# The number of neighbours per image and descriptor, and their least similarity. Of 3,600 copies planted in three
# datasets, none had a similarity below 0.91 by its hash, and 1 % one below 0.6 by features.
NUM_NEIGHBOURS = 2
MIN_HASH_LIKENESS = 0.8
MIN_FEATURE_LIKENESS = 0.6
# The number of frequencies per direction, and the side that a window is resized to before the transform, in pixels.
NUM_FREQUENCIES = 6
WINDOW_SIDE = 32
# Side length and position (0: left or top, 1: right or bottom) of the windows, as fractions.
WINDOWS = [
    (1.0, 0.5, 0.5),
    *((0.9, x, y) for x, y in ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))),
    (0.8, 0.5, 0.5),
]
# The number of elements in a block of the matrix product: small enough for the processor's cache.
BLOCK_ELEMENTS = 2**20
# The number of images whose windows are transformed at a time.
CHUNK = 1024

Array = npt.NDArray[np.float32]


def pairs_by_hash(thumbnails: npt.NDArray[np.uint8], allowed: Allowed) -> npt.NDArray[np.int64]:
    """Find the pairs of images whose pixels should be compared, by their hashes.

    Args:
        thumbnails: uint8 [N, S, S].
        allowed: which images can be neighbours.

    Returns:
        Pairs (i, j) with i < j, int64 [P, 2].
    """
    even, odd = _window_hashes(thumbnails)
    return unique_pairs(_nearest(even[:, 0], even, allowed, MIN_HASH_LIKENESS, (odd[:, 0], odd)))


def pairs_by_features(features: npt.NDArray[np.float16], allowed: Allowed) -> npt.NDArray[np.int64]:
    """The same by features, float16 [N, D]."""
    centred = features.astype(np.float32) - features.mean(axis=0, dtype=np.float32)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return unique_pairs(_nearest(centred, centred[:, np.newaxis], allowed, MIN_FEATURE_LIKENESS))


def unique_pairs(*pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Pairs in any order and number, each once, with the smaller number first."""
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)


def _window_hashes(thumbnails: npt.NDArray[np.uint8]) -> tuple[Array, Array]:
    """The hash of every window, [N, W, D], as its even and its odd horizontal frequencies; the whole image comes first.

    Mirroring an image changes the sign of the odd frequencies. Both parts together have length 1.
    """
    operators = {window: _window_operator(*window, thumbnails.shape[1]) for window in _lines()}
    hashes = np.concatenate(
        [_transform(thumbnails[start : start + CHUNK], operators) for start in range(0, len(thumbnails), CHUNK)]
    )
    # Remove the contrast, which scales all frequencies by one factor.
    hashes /= np.maximum(np.linalg.norm(hashes, axis=2, keepdims=True), 1e-6)
    # Standardise each frequency over all images and their mirror images (so that the mean of an odd one is 0), because
    # frequencies that all images share do not distinguish them.
    is_odd = np.tile(np.arange(NUM_FREQUENCIES) % 2 == 1, NUM_FREQUENCIES)[1:]
    whole = hashes[:, 0].astype(np.float64)
    centre = np.where(is_odd, 0, whole.mean(axis=0))
    hashes -= centre.astype(np.float32)
    hashes /= (np.sqrt(((whole - centre) ** 2).mean(axis=0)) + 1e-3).astype(np.float32)
    hashes /= np.maximum(np.linalg.norm(hashes, axis=2, keepdims=True), 1e-12)
    return hashes[:, :, ~is_odd], hashes[:, :, is_odd]


def _transform(thumbnails: npt.NDArray[np.uint8], operators: dict[tuple[float, float], Array]) -> Array:
    """The frequencies of all windows, [N, W, F], without the mean, which is the brightness."""
    images = thumbnails.astype(np.float32)
    # Windows with the same vertical range share this product.
    down = {line: operator @ images for line, operator in operators.items()}
    windows = [(down[scale, y] @ operators[scale, x].T).reshape(len(images), -1)[:, 1:] for scale, x, y in WINDOWS]
    return np.stack(windows, axis=1)


def _lines() -> set[tuple[float, float]]:
    return {(scale, position) for scale, x, y in WINDOWS for position in (x, y)}


def _window_operator(scale: float, position: float, side: int) -> Array:
    """The matrix that cuts a range out of ``side`` pixels, resizes it by area and computes its low frequencies."""
    start = (1 - scale) * side * position
    edges = start + np.arange(WINDOW_SIDE + 1) * scale * side / WINDOW_SIDE
    pixel = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    area = np.clip(overlap, 0, None) / (scale * side / WINDOW_SIDE)
    transform = dct(np.eye(WINDOW_SIDE), axis=0, norm="ortho")[:NUM_FREQUENCIES]
    operator: Array = (transform @ area).astype(np.float32)
    return operator


def _nearest(
    queries: Array, keys: Array, allowed: Allowed, least: float, odd: tuple[Array, Array] | None = None
) -> npt.NDArray[np.int64]:
    """Find the nearest allowed neighbours of each query, by the best of the neighbour's keys.

    Args:
        queries: [N, D], each of length 1.
        keys: [N, K, D], each of length 1.
        allowed: which images can be neighbours.
        least: the least similarity of a neighbour.
        odd: the queries and keys of the odd frequencies, which change their sign in a mirror image; the better sign
            counts.

    Returns:
        Pairs (query, neighbour), int64 [P, 2].
    """
    query, key = torch.from_numpy(queries), torch.from_numpy(keys)
    odd_query, odd_key = map(torch.from_numpy, odd) if odd else (None, None)

    def of_rows(rows: torch.Tensor) -> npt.NDArray[np.int64]:
        alike = torch.full((len(rows), len(query)), -torch.inf)
        for number in range(key.shape[1]):
            product = query[rows] @ key[:, number].T
            if odd_query is not None and odd_key is not None:
                product += (odd_query[rows] @ odd_key[:, number].T).abs_()
            torch.maximum(alike, product, out=alike)
        alike.masked_fill_(torch.from_numpy(~allowed(rows.numpy())), -torch.inf)
        best, neighbours = alike.topk(min(NUM_NEIGHBOURS, len(query)), dim=1)
        near = best >= least
        return torch.stack([rows[:, None].expand_as(neighbours)[near], neighbours[near]], dim=1).numpy()

    blocks = torch.split(torch.arange(len(query)), max(1, BLOCK_ELEMENTS // max(len(query), 1)))
    return np.concatenate([np.zeros((0, 2), dtype=np.int64), *map_batches(of_rows, blocks)])
