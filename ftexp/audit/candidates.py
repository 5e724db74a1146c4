"""Pairs of images that may be near duplicates, found without comparing pixels.

Two descriptors, each searched for nearest neighbours by blocks of a matrix product:

- a perceptual hash without the last step: the low frequencies of the cosine transform of a thumbnail, as numbers and
  not as bits. The hash of one image is compared with those of windows of the other and of its mirror image, so that
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

# Neighbours kept per image and descriptor.
NUM_NEIGHBOURS = 2
# Frequencies per direction, and the side that a window is brought to before the transform.
NUM_FREQUENCIES = 6
WINDOW_SIDE = 32
# Side length and place (0: left or top, 1: right or bottom) of the windows, as shares.
WINDOWS = [
    (1.0, 0.5, 0.5),
    *((0.9, x, y) for x, y in ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))),
    (0.8, 0.5, 0.5),
]
# Numbers in a block of the matrix product: bounds the memory whatever the number of images.
BLOCK_ELEMENTS = 2**24

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
    hashes = _window_hashes(thumbnails)
    found = [_nearest(hashes[:, 0], hashes, allowed)]
    if features.shape[1]:
        centred = features.astype(np.float32) - features.mean(axis=0, dtype=np.float32)
        found.append(_nearest(centred, centred[:, np.newaxis], allowed))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _window_hashes(thumbnails: npt.NDArray[np.uint8]) -> Array:
    """Of every window, of the image and of its mirror image: N x (2 windows) x frequencies, the whole image first."""
    operators = {window: _window_operator(*window, thumbnails.shape[1]) for window in _lines()}
    images = thumbnails.astype(np.float32)
    plain = np.stack(
        [operators[scale, y] @ images @ operators[scale, x].T for scale, x, y in WINDOWS], axis=1
    )  # N x windows x frequency down x frequency across
    # Mirroring turns the sign of the odd frequencies across.
    mirrored = plain * np.where(np.arange(NUM_FREQUENCIES) % 2, -1, 1).astype(np.float32)
    hashes = np.concatenate([plain, mirrored], axis=1)
    flat = hashes.reshape(len(images), 2 * len(WINDOWS), -1)[:, :, 1:]  # without the mean: brightness
    # A change of contrast scales them all alike.
    flat = flat / np.maximum(np.linalg.norm(flat, axis=2, keepdims=True), 1e-6)
    # Frequencies that all images share tell nothing apart: weigh each by how much it varies.
    centre = flat[:, [0, len(WINDOWS)]].mean(axis=(0, 1))
    spread = flat[:, [0, len(WINDOWS)]].std(axis=(0, 1)) + 1e-3
    whitened: Array = ((flat - centre) / spread).astype(np.float32)
    return whitened


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


def _nearest(queries: Array, keys: Array, allowed: Allowed) -> npt.NDArray[np.int64]:
    """Each query's nearest allowed neighbours by the best of their keys.

    Args:
        queries: N x D.
        keys: N x K x D.

    Returns:
        Pairs (query, neighbour).
    """
    num_samples, num_keys, size = keys.shape
    query = torch.nn.functional.normalize(torch.from_numpy(queries), dim=1)
    key = torch.nn.functional.normalize(torch.from_numpy(keys), dim=2).reshape(-1, size)
    pairs = []
    for rows in torch.split(torch.arange(num_samples), max(1, BLOCK_ELEMENTS // len(key))):
        alike = (query[rows] @ key.T).view(len(rows), num_samples, num_keys).amax(dim=2)
        alike[~torch.from_numpy(allowed(rows.numpy()))] = -torch.inf
        best, neighbours = alike.topk(min(NUM_NEIGHBOURS, num_samples), dim=1)
        real = torch.isfinite(best)
        pairs.append(torch.stack([rows[:, None].expand_as(neighbours)[real], neighbours[real]], dim=1))
    return torch.cat(pairs).numpy()
