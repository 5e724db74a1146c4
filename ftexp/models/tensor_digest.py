"""Digests of tensors by their names and bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def add_tensors(digest: hashlib.blake2b, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Update a digest with the name and the bytes of each tensor, in their order."""
    for name, tensor in tensors:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
