"""Copies of arrays to a device."""

from __future__ import annotations

import pytest
import torch

from ftexp.machine.transfer import batches_to_device, to_device

CPU = torch.device("cpu")


def test_numbers_keep_their_kind_and_shape() -> None:
    for values, dtype, shape in (([True, False], torch.bool, (2,)), ([(0.5, 1.0)], torch.float32, (1, 2))):
        tensor = to_device(values, CPU)
        assert (tensor.dtype, tuple(tensor.shape)) == (dtype, shape)
        assert tensor.tolist() == [list(v) if isinstance(v, tuple) else v for v in values]


def test_batches_of_several_sizes_and_without_numbers_are_int64() -> None:
    batches = [[3, 1], [2], []]
    tensors = batches_to_device(batches, CPU)
    assert [tensor.tolist() for tensor in tensors] == batches
    assert {tensor.dtype for tensor in (*tensors, *batches_to_device([[]], CPU))} == {torch.int64}


def test_a_gpu_is_sent_numbers_from_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[torch.device, bool]] = []

    class Pinned:
        def to(self, device: torch.device, *, non_blocking: bool = False) -> torch.Tensor:
            sent.append((device, non_blocking))
            return torch.tensor([3, 1, 2])

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda _: Pinned())
    cuda = torch.device("cuda")
    assert [part.tolist() for part in batches_to_device([[3, 1], [2]], cuda)] == [[3, 1], [2]]
    assert sent == [(cuda, True)]
