"""Pairs of images that may be near duplicates, found without comparing pixels.

Two descriptors, each searched for nearest neighbours by blocks of a matrix product:

- a perceptual hash without the last step: the low frequencies of the cosine transform of a thumbnail, as numbers and
  not as bits. The hash of one image is compared with those of windows of the other and of their mirror images, so that
  cropped and flipped copies are found;
- features of a pretrained network.

Source: the DCT hash is the one of imagehash.phash (Zauner 2010), taken here for many windows at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dct

from ftexp.audit.parallel import map_batches

# Neighbours kept per image and descriptor, and how alike they have to be at least: of 3,600 copies planted in three
# data sets none was below 0.91 by its hash, and 1 % below 0.6 by features.
NUM_NEIGHBOURS = 2
MIN_HASH_LIKENESS = 0.8
MIN_FEATURE_LIKENESS = 0.6
# Frequencies per direction, and the side that a window is brought to before the transform.
NUM_FREQUENCIES = 6
WINDOW_SIDE = 32
# Side length and place (0: left or top, 1: right or bottom) of the windows, as shares.
WINDOWS = [
    (1.0, 0.5, 0.5),
    *((0.9, x, y) for x, y in ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))),
    (0.8, 0.5, 0.5),
]
# Numbers in a block of the matrix product: small enough for the processor's cache, whatever the number of images.
BLOCK_ELEMENTS = 2**20
# Images whose windows are transformed at a time.
CHUNK = 1024

Array = npt.NDArray[np.float32]
# Which of the columns may be a neighbour of a block of rows: (row numbers) -> bool rows x N.
Allowed = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]


def candidate_pairs(
    thumbnails: npt.NDArray[np.uint8], features: npt.NDArray[np.float16], allowed: Allowed
) -> npt.NDArray[np.int64]:
    """Pairs (i, j), i < j, worth a look at the pixels.

    Args:
        thumbnails: N x side x side.
        features: N x features; no columns to go without.
    """
    even, odd = _window_hashes(thumbnails)
    found = [_nearest(even[:, 0], even, allowed, MIN_HASH_LIKENESS, (odd[:, 0], odd))]
    if features.shape[1]:
        centred = features.astype(np.float32) - features.mean(axis=0, dtype=np.float32)
        centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
        found.append(_nearest(centred, centred[:, np.newaxis], allowed, MIN_FEATURE_LIKENESS))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _window_hashes(thumbnails: npt.NDArray[np.uint8]) -> tuple[Array, Array]:
    """Of every window the even and the odd frequencies across, N x windows x D each, the whole image first.

    Mirroring an image turns the sign of the odd ones. Both together are of length 1.
    """
    operators = {window: _window_operator(*window, thumbnails.shape[1]) for window in _lines()}
    hashes = np.concatenate(
        [_transform(thumbnails[start : start + CHUNK], operators) for start in range(0, len(thumbnails), CHUNK)]
    )
    # A change of contrast scales them all alike.
    hashes /= np.maximum(np.linalg.norm(hashes, axis=2, keepdims=True), 1e-6)
    # Frequencies that all images share tell nothing apart: weigh each by how much it varies, over images and their
    # mirror images, so that the mean of an odd one is 0.
    is_odd = np.tile(np.arange(NUM_FREQUENCIES) % 2 == 1, NUM_FREQUENCIES)[1:]
    whole = hashes[:, 0].astype(np.float64)
    centre = np.where(is_odd, 0, whole.mean(axis=0))
    hashes -= centre.astype(np.float32)
    hashes /= (np.sqrt(((whole - centre) ** 2).mean(axis=0)) + 1e-3).astype(np.float32)
    hashes /= np.maximum(np.linalg.norm(hashes, axis=2, keepdims=True), 1e-12)
    return hashes[:, :, ~is_odd], hashes[:, :, is_odd]


def _transform(thumbnails: npt.NDArray[np.uint8], operators: dict[tuple[float, float], Array]) -> Array:
    """N x windows x frequencies, without the mean, which is brightness."""
    images = thumbnails.astype(np.float32)
    # Rows and columns of each stretch once; windows share them.
    down = {line: operator @ images for line, operator in operators.items()}
    windows = [(down[scale, y] @ operators[scale, x].T).reshape(len(images), -1)[:, 1:] for scale, x, y in WINDOWS]
    return np.stack(windows, axis=1)


def _lines() -> set[tuple[float, float]]:
    return {(scale, place) for scale, x, y in WINDOWS for place in (x, y)}


def _window_operator(scale: float, place: float, side: int) -> Array:
    """The matrix that cuts a stretch out of ``side`` pixels, resizes it by area and takes its low frequencies."""
    start = (1 - scale) * side * place
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
    """Each query's nearest allowed neighbours by the best of their keys.

    Args:
        queries: N x D, of length 1.
        keys: N x K x D, of length 1.
        least: neighbours less alike than that are none.
        odd: queries and keys of what changes its sign in a mirror image; either sign counts.

    Returns:
        Pairs (query, neighbour).
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
