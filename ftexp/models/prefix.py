"""Splits a network in two: the frozen prefix, whose output can be cached, and the trainable suffix.

Both parts run the network's own forward with its own parameters, so this works for any architecture. The prefix stops
where the first trainable block begins. The suffix runs a shallow copy of the module tree. In this copy, every module
that finished before that block returns NaN of the right shape, and the block's first module gets the cached activations
instead of its input. If any other tensor crossed the boundary, the logits would be NaN. Every split is compared with
the whole network, bit for bit on the CPU, and refused if the outputs differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ftexp.machine.accelerator import random_state_of
from ftexp.machine.generators import forked_generators
from ftexp.models.block_boundary import (
    Boundary,
    ReachedEntryError,
    SplitError,
    eval_for_trial,
    find_boundary,
    trial_images,
)
from ftexp.models.blocks import Network
from ftexp.models.suffix import Suffix

__all__ = ["Prefix", "SplitError", "Suffix", "split"]


def split(network: Network, first_learning_block: str) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Split a network before a block.

    Call it again after modules have been replaced (by another head, or by a conversion to SyncBatchNorm).

    Args:
        network: the network; in eval mode, prefix and suffix together give the same output as the whole.
        first_learning_block: the first block of the suffix; with ``head``, the suffix is the head alone.

    Returns:
        Prefix and suffix: ``suffix(prefix(images))`` are the logits [B, C] of the images [B, 3, H, W].

    Raises:
        SplitError: if more than one tensor crosses the boundary, or the parts do not give the output of the whole.
    """
    network.paths(first_learning_block)  # raises ConfigError if there is no such block
    if first_learning_block == network.names[0]:
        return _unchanged, network.module
    with eval_for_trial(network.module):
        boundary = find_boundary(network, first_learning_block)
        prefix, suffix = Prefix(boundary), Suffix(boundary)
        try:
            _check(network, first_learning_block, prefix, suffix)
        except RuntimeError as error:
            if isinstance(error, SplitError):
                raise
            boundary.dense = True  # the network writes into a placeholder, so placeholders need memory
            _check(network, first_learning_block, prefix, suffix)
    return prefix, suffix


class Prefix:
    """Maps images to the activations that enter the first trainable block; never records gradients.

    Modules keep their modes: frozen blocks are expected to be in eval mode.
    """

    def __init__(self, boundary: Boundary) -> None:
        self._boundary = boundary

    @property
    def rows_per_image(self) -> int:
        """Rows of the activations per image."""
        return self._boundary.crossing.per_image[0]

    @property
    def bytes_per_image(self) -> int:
        """Bytes that the activations of one image take without autocast."""
        crossing = self._boundary.crossing
        row = math.prod(fixed + per for fixed, per in zip(crossing.fixed, crossing.per_image, strict=True))
        return (row + sum(tap.width for tap in self._boundary.taps)) * crossing.dtype.itemsize

    @torch.no_grad()
    def draws(self, images: Tensor) -> bool:
        """Whether the prefix draws random numbers in the present modes of its modules, as dropout does in training.

        Args: images [B, 3, H, W].
        """
        with forked_generators(images.device):
            before = random_state_of(images.device)
            self.run(images)
            return not torch.equal(before, random_state_of(images.device))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Activations [B * rows_per_image, ...] of images [B, 3, H, W], in the network's own dtype and layout.

        Where the head takes outputs of earlier blocks, these are behind the activations: [B, all of them].
        """
        return self.run(images).detach()

    def run(self, images: Tensor) -> Tensor:
        """The same, but with gradients if the caller has enabled them."""
        entry, caught = self._boundary.entry, []

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append(tree_flatten((args, kwargs))[0][self._boundary.leaf])
            raise ReachedEntryError

        handle = entry.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self._boundary.module.forward(images)
        except ReachedEntryError:
            pass
        finally:
            handle.remove()
        activations: Tensor = caught[0]
        return self._boundary.packed(activations)


def _unchanged(images: Tensor) -> Tensor:
    return images


def _check(network: Network, block: str, prefix: Prefix, suffix: Suffix) -> None:
    """Compare the parts with the whole network, and check that the prefix does not use the suffix's parameters.

    Raises:
        SplitError: if the outputs differ, or the prefix uses parameters of the suffix.
    """
    learning = {
        id(p) for name in network.names[network.names.index(block) :] for p in network.parameters(name).values()
    }
    for parameter in network.module.parameters():
        parameter.requires_grad_(id(parameter) in learning)
    images = trial_images(network)[1]
    with torch.enable_grad():
        activations = prefix.run(images)
    if activations.requires_grad:
        raise SplitError(f"{network.name} cannot be split before '{block}': earlier blocks use its parameters")
    version = activations._version
    with torch.no_grad():
        halves = suffix(activations)
        prefix._boundary.entry_writes |= activations._version != version
        whole = network.module.forward(images)
    if not isinstance(whole, Tensor) or not _same(whole, halves):
        raise SplitError(f"{network.name} cannot be split before '{block}': later blocks need more than one tensor")


def _same(whole: Tensor, halves: Tensor) -> bool:
    """Equal to the bit on the CPU; on a GPU, where sums may differ from call to call, close and without NaN."""
    if whole.device.type == "cpu":
        return torch.equal(whole, halves)
    return torch.allclose(whole, halves, rtol=1e-2, atol=1e-2)
