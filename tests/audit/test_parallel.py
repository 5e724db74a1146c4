"""Batches that are processed in parallel."""

from __future__ import annotations

import pytest
import torch

from ftexp.audit.parallel import map_batches


def test_results_are_in_order_and_every_batch_has_one_thread() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def compute(number: int, factor: int) -> int:
        seen.append(torch.get_num_threads())
        return number * factor

    assert map_batches(compute, range(20), [3] * 20) == [3 * number for number in range(20)]
    assert set(seen) == {1}
    assert torch.get_num_threads() == before


def test_threads_are_given_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        map_batches(lambda number: 1 // number, [1, 0])
    assert torch.get_num_threads() == before
