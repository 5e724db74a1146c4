from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from ftexp.audit import neighbours
from ftexp.audit.neighbours import Found, Neighbours, as_bytes
from ftexp.audit.pairs import differ, is_equal

NUMBER = 3000


def vectors() -> torch.Tensor:
    """Random directions in clusters; each of the second half is close to one of the first."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(40, 12, generator=generator)
    half = centres[torch.arange(NUMBER // 2) % 40] + torch.randn(NUMBER // 2, 12, generator=generator)
    copies = half + 0.05 * torch.randn(half.shape, generator=generator)
    return torch.nn.functional.normalize(torch.cat([half, copies]))


def pairs_of(found: Found) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in found.pairs}


def test_cells_find_nearly_what_comparing_with_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    all_vectors, numbers = vectors(), np.arange(NUMBER)
    half = numbers // (NUMBER // 2)
    wanted = [partial(differ, half), partial(is_equal, half)]
    compared, exact = [], Neighbours(as_bytes(all_vectors), numbers).search(all_vectors, numbers, wanted, 2, 0.9)
    monkeypatch.setattr(neighbours, "MAX_COMPARED_WITH_ALL", 100)
    original = Neighbours._compare

    def compare(
        self: Neighbours, queries: torch.Tensor, owners: neighbours.Numbers, cell: int, *rest: object
    ) -> object:
        compared.append(len(queries) * (self._span(cell).stop - self._span(cell).start))
        return original(self, queries, owners, cell, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Neighbours, "_compare", compare)
    across, within = Neighbours(as_bytes(all_vectors), numbers).search(all_vectors, numbers, wanted, 2, 0.9)
    assert sum(compared) < 0.15 * NUMBER**2
    across, within = across.nearest(0, 2), within.nearest(0, 2)
    copies = {(i, (i + NUMBER // 2) % NUMBER) for i in range(NUMBER)}
    assert copies <= pairs_of(exact[0])
    assert len(copies - pairs_of(across)) <= 0.002 * NUMBER
    assert (half[within.pairs[:, 0]] == half[within.pairs[:, 1]]).all()
    for found, every in ((across, exact[0]), (within, exact[1])):
        assert pairs_of(found) <= pairs_of(every)
        assert len(pairs_of(found)) >= 0.99 * len(pairs_of(every))
    assert np.allclose(
        across.alike, (all_vectors[across.pairs[:, 0]] * all_vectors[across.pairs[:, 1]]).sum(1), atol=1e-2
    )


def test_of_many_equal_pictures_some_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MAX_COMPARED_WITH_ALL", 10)
    monkeypatch.setattr(neighbours, "MAX_KEYS_OF_A_CELL", 20)
    equal, numbers = torch.eye(4)[torch.zeros(500, dtype=torch.int64)], np.arange(500)
    index = Neighbours(as_bytes(equal), numbers)
    assert max(index._span(cell).stop - index._span(cell).start for cell in range(len(index._ends))) == 20
    (found,) = index.search(equal, numbers, [partial(differ, numbers)], 2, 0.9)
    assert set(found.pairs[:, 0]) == set(range(500))


def test_each_pair_counts_once_and_the_most_alike_of_a_side_remain() -> None:
    pairs = np.array([[1, 5], [1, 5], [1, 6], [1, 7], [2, 7], [3, 7]])
    found = Found(pairs, np.array([0.7, 0.9, 0.8, 0.6, 0.5, 0.4], np.float32))
    assert pairs_of(found.nearest(0, 2)) == {(1, 5), (1, 6), (2, 7), (3, 7)}
    assert pairs_of(found.nearest(1, 1)) == {(1, 5), (1, 6), (1, 7)}
    of_five = found.nearest(0, 1)
    assert of_five.alike[(of_five.pairs == [1, 5]).all(axis=1)] == [np.float32(0.9)]
    assert pairs_of(Found.joined([]).nearest(0, 2)) == set()
