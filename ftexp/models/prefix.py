"""A network in two halves: the frozen prefix, whose output can be kept, and the suffix that learns.

Both halves are the network's own forward over its own parameters, so they hold for any architecture. The prefix
stops where the first learning block begins. The suffix runs a shallow copy of the module tree in which every module
that was done by then answers with NaN of the right shape, and the block's entry takes the kept activations instead of
its input. Anything else that crossed the boundary would turn the logits into NaN; a split is checked before it is
handed out, bit for bit against the whole network, and refused where it does not hold.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ftexp.machine.generators import forked_generators
from ftexp.models.block_boundary import (
    Boundary,
    ReachedEntryError,
    SplitError,
    Template,
    eval_for_trial,
    find_boundary,
    layout_of,
    trial_images,
)
from ftexp.models.blocks import Network

__all__ = ["Prefix", "SplitError", "Suffix", "split"]


def split(network: Network, first_learning_block: str) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Cut a network in front of a block.

    Call it again after anything that exchanges modules (another head, a conversion to SyncBatchNorm).

    Args:
        network: in eval mode its halves give, one after the other, the same bits as the whole.
        first_learning_block: this block and all after it make up the suffix; ``head`` leaves it the head alone.

    Returns:
        prefix and suffix: ``suffix(prefix(images))`` are the logits BK of the images B3HW.

    Raises:
        SplitError: if more than one tensor crosses the boundary, or the halves do not give the whole's output.
    """
    network.paths(first_learning_block)  # an unknown name is refused here
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
            boundary.dense = True  # a stand-in was written into: give them memory
            _check(network, first_learning_block, prefix, suffix)
    return prefix, suffix


class Prefix:
    """Images to the activations that enter the first learning block; never records gradients.

    Modules run in the mode they are in: frozen blocks are expected to be in eval mode.
    """

    def __init__(self, boundary: Boundary) -> None:
        self._boundary = boundary

    @property
    def rows_per_image(self) -> int:
        """How many rows of the activations belong to an image."""
        return self._boundary.crossing.per_image[0]

    @property
    def bytes_per_image(self) -> int:
        """How much memory the activations of an image take, where no autocast makes them smaller."""
        crossing = self._boundary.crossing
        row = math.prod(fixed + per for fixed, per in zip(crossing.fixed, crossing.per_image, strict=True))
        return row * crossing.dtype.itemsize

    @torch.no_grad()
    def draws(self, images: Tensor) -> bool:
        """Whether it draws random numbers in the modes that its modules are in, as dropout in a forward does."""
        with forked_generators(images.device):
            before = _random_state(images.device)
            self.run(images)
            return not torch.equal(before, _random_state(images.device))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Activations, one row or more per image first, for images B3HW; dtype and layout as the network makes them."""
        return self.run(images).detach()

    def run(self, images: Tensor) -> Tensor:
        """The same under the caller's gradient mode."""
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
        return activations


class Suffix:
    """Activations to logits, with the network's own parameters and in the modes that its modules are in."""

    def __init__(self, boundary: Boundary) -> None:
        self._boundary = boundary
        self._twins: dict[nn.Module, nn.Module] = {}
        self._batch = 0
        self._activations: Tensor | None = None
        self._calls: dict[nn.Module, int] = {}
        self._targets = {*boundary.answers, boundary.entry}
        self._root = self._twin(boundary.module)

    def __call__(self, activations: Tensor) -> Tensor:
        """Logits BK for activations as the prefix makes them; gradients reach the learning blocks."""
        boundary = self._boundary
        for original, twin in self._twins.items():
            twin.training = original.training
        self._batch = activations.shape[0] // boundary.crossing.per_image[0]
        self._calls.clear()
        if layout_of(activations) != boundary.layout:
            activations = _in_layout(activations, boundary.layout)
        self._activations = activations.clone() if boundary.entry_writes else activations
        try:
            logits: Tensor = self._root.forward(self._unknown(boundary.images))
        finally:
            self._activations = None
        return logits

    def _twin(self, module: nn.Module) -> nn.Module:
        """A shallow copy with its own children where something below is exchanged; else the module itself."""
        if module in self._twins:
            return self._twins[module]
        if not any(child in self._targets for child in module.modules()):
            return module
        twin = self._twins[module] = copy.copy(module)
        twin.__dict__.pop("_compiled_call_impl", None)
        if module in self._boundary.answers:
            twin.__dict__["forward"] = self._answering(module)
            twin.__dict__["_forward_hooks"] = {}
            twin.__dict__["_forward_pre_hooks"] = {}
        elif module is self._boundary.entry:
            twin.__dict__["forward"] = self._entering(twin.forward)
        else:
            twin.__dict__["_modules"] = {
                name: None if child is None else self._twin(child) for name, child in module._modules.items()
            }
        return twin

    def _answering(self, module: nn.Module) -> Callable[..., Any]:
        answers = self._boundary.answers[module]

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = self._calls.get(module, 0)
            self._calls[module] = call + 1
            if call >= len(answers):  # called again behind the boundary: this time it counts
                return module(*args, **kwargs)
            return tree_map(
                lambda leaf: self._unknown(leaf) if isinstance(leaf, Template) else leaf,
                answers[call],
                is_leaf=lambda leaf: isinstance(leaf, Template),
            )

        return forward

    def _entering(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._activations is None:  # entered again: its own output, or what follows from it
                return original(*args, **kwargs)
            leaves, structure = tree_flatten((args, kwargs))
            leaves[self._boundary.leaf], self._activations = self._activations, None
            args, kwargs = tree_unflatten(leaves, structure)
            return original(*args, **kwargs)

        return forward

    def _unknown(self, template: Template) -> Tensor:
        return template.unknown(self._batch, self._device, self._boundary.dense)

    @property
    def _device(self) -> torch.device:
        return next(self._boundary.module.parameters()).device


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _unchanged(images: Tensor) -> Tensor:
    return images


def _in_layout(tensor: Tensor, layout: tuple[int, ...]) -> Tensor:
    back = tuple(layout.index(dim) for dim in range(len(layout)))
    return tensor.permute(layout).contiguous().permute(back)


def _check(network: Network, block: str, prefix: Prefix, suffix: Suffix) -> None:
    """Whole and halves must agree to the bit, and the prefix must not depend on what the suffix learns.

    Raises:
        SplitError: if they do not, or if it does.
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
        raise SplitError(f"{network.name} cannot be cut before '{block}': what comes before uses its parameters")
    version = activations._version
    with torch.no_grad():
        halves = suffix(activations)
        prefix._boundary.entry_writes |= activations._version != version
        whole = network.module.forward(images)
    if not isinstance(whole, Tensor) or not _same(whole, halves):
        raise SplitError(f"{network.name} cannot be cut before '{block}': more than one tensor crosses there")


def _same(whole: Tensor, halves: Tensor) -> bool:
    """To the bit on the CPU; elsewhere kernels may sum in another order from call to call, and NaN still tells."""
    if whole.device.type == "cpu":
        return torch.equal(whole, halves)
    return torch.allclose(whole, halves, rtol=1e-2, atol=1e-2)
