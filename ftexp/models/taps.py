"""Taps: where the outputs of a network's blocks are taken and averaged over their places, for a head on all depths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ftexp.models.block_boundary import TRIAL_SIZES, eval_for_trial, trial_images
from ftexp.models.blocks import Network, Tap


class TapError(RuntimeError):
    """The outputs of a network's blocks cannot be taken; the message says why."""


def find_taps(network: Network) -> tuple[Tap, ...]:
    """Find where the output of every block but the last enters the next block, by two trial runs.

    The last block has no tap: what the network itself makes of its output enters the last layer.

    Raises:
        TapError: if the blocks do not run one after the other, more than one tensor passes from one to the next, or
            it has no dimensions of channels and places that could be told apart.
    """
    with torch.no_grad(), eval_for_trial(network.module):
        first, second = (_entries(network, images) for images in trial_images(network))
    blocks = network.names[:-1]
    if tuple(first) != blocks or tuple(second) != blocks:
        raise TapError(f"{network.name} does not run its blocks one after the other")
    paths = {module: path for path, module in network.module.named_modules()}
    taps = []
    for block, following in pairwise(blocks):
        (module, leaves), (other, others) = first[following], second[following]
        if module is not other or len(leaves) != len(others):
            raise TapError(f"{network.name} does not run its modules in the same order for every batch")
        taps.append(_tap(network, block, paths[module], leaves, others))
    return tuple(taps)


def _entries(network: Network, images: Tensor) -> dict[str, tuple[nn.Module, list[Any]]]:
    """The module by which each block is entered, in the order of the forward, and the shapes of its arguments."""
    block_of = {
        child: name
        for name in network.names[:-1]
        for root in network.modules(name)
        for child in root.modules()
        if any(True for _ in child.parameters()) or any(True for _ in child.buffers())
    }
    found: dict[str, tuple[nn.Module, list[Any]]] = {}
    entered: list[nn.Module] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        leaves = [leaf.shape if isinstance(leaf, Tensor) else None for leaf in tree_flatten((args, kwargs))[0]]
        found.setdefault(block_of[module], (module, leaves))
        entered.append(module)

    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in block_of]
    try:
        network.module.forward(images)
    finally:
        for handle in handles:
            handle.remove()
    for block, (module, _) in found.items():
        if entered.count(module) > 1:
            raise TapError(f"{network.name} enters its block {block} more than once")
    return found


def _tap(network: Network, block: str, entry: str, first: Sequence[Any], second: Sequence[Any]) -> Tap:
    crossing = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    if len(crossing) != 1:
        raise TapError(f"{len(crossing)} tensors pass from block {block} of {network.name} to the next instead of one")
    shape, larger = first[crossing[0]], second[crossing[0]]
    over = _places(shape[1:])
    if over is None or (shape[0], larger[0]) != TRIAL_SIZES or shape[1:] != larger[1:]:
        raise TapError(
            f"the output of block {block} of {network.name}, {' x '.join(map(str, shape))}, is none of [B, C, H, H], "
            "[B, H, H, C], [B, N, C] and [B, C]"
        )
    (channels,) = set(range(1, len(shape))) - set(over)
    return Tap(block, entry, crossing[0], over, shape[channels])


def _places(sizes: Sequence[int]) -> tuple[int, ...] | None:
    """The dimensions of places in a tensor [B, *sizes] of square images; None if they cannot be told."""
    if len(sizes) < 3:
        return tuple(range(1, len(sizes)))
    if len(sizes) > 3:
        return None
    if sizes[1] == sizes[2]:
        return (2, 3)
    return (1, 2) if sizes[0] == sizes[1] else None
