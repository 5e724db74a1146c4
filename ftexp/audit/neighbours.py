"""Finds the nearest neighbours of many vectors in a time that grows little faster than their number.

Up to some ten thousand keys, a query is compared with all of them. More are sorted into cells around centres, and a
query is compared with the keys of the cells whose centres are nearest to it.

Source: the inverted file of Jégou, Douze and Schmid (2011), without its compression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ftexp.audit.pairs import Wanted
from ftexp.audit.parallel import map_batches

# Up to so many keys are all in one cell.
MAX_COMPARED_WITH_ALL = 8_192
# The number of cells, as a multiple of the square root of the number of keys; and of how many cells a query is compared
# with the keys.
CELLS_PER_ROOT, CELLS_OF_A_QUERY = 2.0, 12
# The k-means that finds the centres of cells: the number of vectors for each centre, and of rounds.
SAMPLES_PER_CELL, ROUNDS = 48, 6
# A query is compared with at most so many keys of a cell, chosen at random: many pictures can look the same.
MAX_KEYS_OF_A_CELL = 16_384
# Keys are kept as bytes, which changes a product by 0.002.
LARGEST_BYTE = 127
# The number of elements in a block of the matrix product: small enough for the processor's cache.
BLOCK_ELEMENTS = 2**20

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Found:
    """Pairs of a query and a key that are alike.

    Attributes:
        pairs: their owners, int64 [P, 2].
        alike: the product of their vectors, float32 [P].
    """

    pairs: Numbers
    alike: npt.NDArray[np.float32]

    @staticmethod
    def joined(parts: Sequence[Found]) -> Found:
        """The pairs of all parts together."""
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *(part.pairs for part in parts)])
        return Found(pairs, np.concatenate([np.zeros(0, np.float32), *(part.alike for part in parts)]))

    def nearest(self, side: int, number: int) -> Found:
        """Each pair once, and for each query (side 0) or key (side 1) only the ``number`` pairs that are most alike."""
        order = np.lexsort((-self.alike, self.pairs[:, 1], self.pairs[:, 0]))
        pairs = self.pairs[order]
        first = np.ones(len(pairs), bool)
        first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
        once = order[first]
        once = once[np.lexsort((-self.alike[once], self.pairs[once, side]))]
        owner = self.pairs[once, side]
        starts = np.concatenate([[True], owner[1:] != owner[:-1]]) if len(owner) else np.zeros(0, bool)
        rank = np.arange(len(owner)) - np.maximum.accumulate(np.where(starts, np.arange(len(owner)), 0))
        kept = once[rank < number]
        return Found(self.pairs[kept], self.alike[kept])


class Neighbours:
    """Keys among which neighbours are searched.

    Args:
        keys: the ``as_bytes`` of vectors of length 1, int8 [K, D]; they are put in another order in place.
        owners: the number of the image that each key is of, int64 [K].
    """

    def __init__(self, keys: Tensor, owners: Numbers) -> None:
        self._centres = _centres(keys)
        cell = _nearest_centres(keys, self._centres, 1)[:, 0].numpy()
        order = np.random.default_rng(0).permutation(len(keys))
        order = order[np.argsort(cell[order], kind="stable")]
        self._ends = np.cumsum(np.bincount(cell, minlength=len(self._centres)))
        self._keys, self._owners, rows = keys, owners[order], torch.from_numpy(order)
        for column in range(keys.shape[1]):  # without a second copy of all of them
            keys[:, column] = keys[rows, column]

    def search(
        self, queries: Tensor, owners: Numbers, wanted: Sequence[Wanted], number: int, least: float
    ) -> list[Found]:
        """Find for each query the nearest keys.

        Args:
            queries: float32 [Q, D], each of length 1.
            owners: the number of the image that each query is of, int64 [Q].
            wanted: which pairs of images to search; each condition gets a search of its own.
            number: how many neighbours of a query are found at most.
            least: the least likeness of a neighbour, a product of their vectors.
        """
        probed = _nearest_centres(queries, self._centres, CELLS_OF_A_QUERY).numpy()
        order = np.argsort(probed, axis=None, kind="stable")
        rows, ends = order // probed.shape[1], np.cumsum(np.bincount(probed.ravel(), minlength=len(self._centres)))
        tasks = [
            (cell, block)
            for cell, of_cell in enumerate(np.split(rows, ends[:-1]))
            for block in self._blocks(cell, of_cell)
        ]

        def compare(task: tuple[int, Numbers]) -> list[Found]:
            cell, block = task
            return self._compare(queries[torch.from_numpy(block)], owners[block], cell, wanted, number, least)

        parts = map_batches(compare, tasks)
        return [Found.joined([part[at] for part in parts]) for at in range(len(wanted))]

    def _span(self, cell: int) -> slice:
        end = int(self._ends[cell])
        start = int(self._ends[cell - 1]) if cell else 0
        return slice(start, min(end, start + MAX_KEYS_OF_A_CELL))

    def _blocks(self, cell: int, rows: Numbers) -> list[Numbers]:
        size = (span := self._span(cell)).stop - span.start
        if size == 0 or len(rows) == 0:
            return []
        most = max(1, BLOCK_ELEMENTS // size)
        return [rows[start : start + most] for start in range(0, len(rows), most)]

    @torch.inference_mode()
    def _compare(
        self, queries: Tensor, owners: Numbers, cell: int, wanted: Sequence[Wanted], number: int, least: float
    ) -> list[Found]:
        span = self._span(cell)
        product, of_keys = queries @ self._keys[span].float().div_(LARGEST_BYTE).T, self._owners[span]
        promising = torch.nonzero(product.amax(dim=1) >= least)[:, 0]
        product, owners = product[promising], owners[promising.numpy()]
        found = []
        for one in wanted:
            masked = product.masked_fill(torch.from_numpy(~one(owners, of_keys)), -torch.inf)
            best, at = masked.topk(min(number, len(of_keys)), dim=1)
            row, column = np.nonzero((best >= least).numpy())
            pairs = np.stack([owners[row], of_keys[at.numpy()[row, column]]], axis=1)
            found.append(Found(pairs, best.numpy()[row, column]))
        return found


def as_bytes(vectors: Tensor) -> Tensor:
    """Vectors of length 1 as keys, int8 of the same shape."""
    return (vectors * LARGEST_BYTE).round_().to(torch.int8)


def _centres(keys: Tensor) -> Tensor:
    """The centres of the cells, float32 [C, D], by k-means."""
    if len(keys) <= MAX_COMPARED_WITH_ALL:
        return torch.zeros((1, keys.shape[1]))
    number = int(CELLS_PER_ROOT * len(keys) ** 0.5)
    chosen = np.random.default_rng(0).permutation(len(keys))[: number * SAMPLES_PER_CELL]
    sample = keys[torch.from_numpy(np.sort(chosen))].float().div_(LARGEST_BYTE)
    centres = sample[:: len(sample) // number][:number].clone()
    for _ in range(ROUNDS):
        cell = _nearest_centres(sample, centres, 1)[:, 0]
        sums = torch.zeros_like(centres).index_add_(0, cell, sample)
        filled = sums.norm(dim=1) > 1e-6  # a centre without vectors stays where it is
        centres[filled] = torch.nn.functional.normalize(sums[filled])
    return centres


def _nearest_centres(vectors: Tensor, centres: Tensor, number: int) -> Tensor:
    """The numbers of the nearest centres of each vector, int64 [N, number or fewer]."""
    # One tensor for all: thousands of small ones between the large products would keep the allocator from using the
    # room of a product again, which took several GB among a million images.
    nearest = torch.zeros((len(vectors), min(number, len(centres))), dtype=torch.int64)
    size = max(1, BLOCK_ELEMENTS // len(centres))

    @torch.inference_mode()
    def of_block(start: int) -> None:
        product = vectors[start : start + size].float() @ centres.T
        for rank in range(nearest.shape[1]):  # for a few of them, faster than topk
            best = product.argmax(dim=1)
            nearest[start : start + size, rank] = best
            product.scatter_(1, best[:, None], -torch.inf)

    if len(centres) > 1:
        map_batches(of_block, range(0, len(vectors), size))
    return nearest
