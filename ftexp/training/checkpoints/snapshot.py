"""Copies of a run's state, which stay as they are while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Address, dtype, shape and strides of a tensor: equal for tensors that share all of their memory.
_Place = tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]]


def snapshot(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested dicts, lists and tuples with all tensors on the CPU; shared tensors stay shared."""
    copy: dict[str, Any] = _copied(state, {})
    return copy


def _copied(value: Any, copies: dict[_Place, Tensor]) -> Any:
    if isinstance(value, Tensor):
        place = value.data_ptr(), value.dtype, tuple(value.shape), value.stride()
        if not value.numel():
            return value.detach().to("cpu", copy=True)
        if place not in copies:
            copies[place] = value.detach().to("cpu", copy=True)
        return copies[place]
    if isinstance(value, Mapping):
        return {key: _copied(inner, copies) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(inner, copies) for inner in value)
    return value
