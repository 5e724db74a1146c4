"""Copies of arrays to a device."""

from __future__ import annotations

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
