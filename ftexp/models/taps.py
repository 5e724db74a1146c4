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
    outputs = []
    for block, following in pairwise(blocks):
        (module, leaves), (other, others) = first[following], second[following]
        if module is not other or len(leaves) != len(others):
            raise TapError(f"{network.name} does not run its modules in the same order for every batch")
        outputs.append((block, paths[module], *_crossing(network, block, leaves, others)))
    layouts = {_places(shape[1:]) for *_, shape in outputs if len(shape) == 4} - {None}
    usual = layouts.pop() if len(layouts) == 1 else None
    return tuple(_tap(network, *output, usual) for output in outputs)


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


def _crossing(network: Network, block: str, first: Sequence[Any], second: Sequence[Any]) -> tuple[int, Sequence[int]]:
    """Which argument is the output of the block, and its shape."""
    crossing = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    if len(crossing) != 1:
        raise TapError(f"{len(crossing)} tensors pass from block {block} of {network.name} to the next instead of one")
    shape, larger = first[crossing[0]], second[crossing[0]]
    if (shape[0], larger[0]) != TRIAL_SIZES or shape[1:] != larger[1:]:
        raise _other_layout(network, block, shape)
    return crossing[0], shape


def _tap(
    network: Network, block: str, entry: str, argument: int, shape: Sequence[int], usual: tuple[int, ...] | None
) -> Tap:
    """The tap of an output; ``usual`` are the places of the other blocks' maps, if they are the same for all."""
    over = _places(shape[1:])
    if over is None and _looks_the_same(shape[1:]):
        over = usual
    if over is None:
        raise _other_layout(network, block, shape)
    (channels,) = set(range(1, len(shape))) - set(over)
    return Tap(block, entry, argument, over, shape[channels])


def _other_layout(network: Network, block: str, shape: Sequence[int]) -> TapError:
    output = f"the output of block {block} of {network.name}, {' x '.join(map(str, shape))},"
    if _looks_the_same(shape[1:]):
        return TapError(f"{output} can be [B, C, H, H] or [B, H, H, C], and no other block's tells which")
    return TapError(f"{output} is none of [B, C, H, H], [B, H, H, C], [B, N, C] and [B, C]")


def _looks_the_same(sizes: Sequence[int]) -> bool:
    """Whether a tensor [B, *sizes] has as many channels as rows and columns."""
    return len(sizes) == 3 and sizes[0] == sizes[1] == sizes[2]


def _places(sizes: Sequence[int]) -> tuple[int, ...] | None:
    """The dimensions of places in a tensor [B, *sizes] of square images; None if they cannot be told."""
    if len(sizes) < 3:
        return tuple(range(1, len(sizes)))
    if len(sizes) > 3 or _looks_the_same(sizes):
        return None
    if sizes[1] == sizes[2]:
        return (2, 3)
    return (1, 2) if sizes[0] == sizes[1] else None
