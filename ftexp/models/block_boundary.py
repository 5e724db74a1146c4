"""The boundary before a block: which tensor crosses it, found by two trial runs of the network's own forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from ftexp.machine.generators import forked_generators
from ftexp.models.blocks import Network, Tap, behaves_differently_in_training
from ftexp.models.depth_head import Collect, collect_of

# Batch sizes of the two trial runs; comparing them shows which dimensions grow with the batch.
TRIAL_SIZES = (1, 2)


class SplitError(RuntimeError):
    """The network cannot be split in two at this block; the message says why."""


class ReachedEntryError(Exception):
    """Stops a forward at the boundary; only an exception can leave the forward of a library's network early."""


@dataclass(frozen=True, slots=True)
class Template:
    """The shape and dtype of a tensor for any batch size: each dimension is ``fixed + per_image * batch``."""

    fixed: tuple[int, ...]
    per_image: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, first: Tensor, second: Tensor) -> Template:
        """The template of a tensor, from its values in the two trial runs."""
        few, many = TRIAL_SIZES
        per_image = tuple((b - a) // (many - few) for a, b in zip(first.shape, second.shape, strict=True))
        fixed = tuple(size - few * per for size, per in zip(first.shape, per_image, strict=True))
        return cls(fixed, per_image, first.dtype)

    def unknown(self, batch: int, device: torch.device, dense: bool) -> Tensor:
        """A placeholder of this shape, filled with NaN (0 for integers) so that any use of its values shows.

        Args:
            batch: number of images.
            device: device of the tensor.
            dense: whether every element gets memory of its own; False: all share one.
        """
        shape = tuple(fixed + per * batch for fixed, per in zip(self.fixed, self.per_image, strict=True))
        value = float("nan") if self.dtype.is_floating_point else 0
        if dense:
            return torch.full(shape, value, dtype=self.dtype, device=device)
        return torch.full((), value, dtype=self.dtype, device=device).expand(shape)


@dataclass(slots=True)
class Boundary:
    """Where the first trainable block begins, and what has been computed before it.

    Attributes:
        module: the whole network.
        entry: the first module of the trainable blocks that the forward calls.
        leaf: index, in the flattened arguments of the entry, of the tensor that comes from the frozen blocks.
        crossing: shape of that tensor, the activations.
        layout: its dimensions from the largest stride to the smallest.
        images: shape of the images.
        answers: every module that finished before the entry -> what each of its calls returned, tensors as templates.
        dense: whether the placeholders for those results need memory, because the network writes into them.
        entry_writes: whether the entry changes the activations in place.
        taps: the outputs of blocks before it that the head takes, and ``collect``, to which they go.
    """

    module: nn.Module
    entry: nn.Module
    leaf: int
    crossing: Template
    layout: tuple[int, ...]
    images: Template
    answers: dict[nn.Module, list[Any]]
    dense: bool = False
    entry_writes: bool = False
    taps: tuple[Tap, ...] = ()
    collect: Collect | None = None

    def packed(self, activations: Tensor) -> Tensor:
        """The activations, and behind them in each row the taps that were taken on the way: [B, ...]."""
        if self.collect is None:
            return activations
        return torch.cat([activations.flatten(1), *self.collect.taken(len(self.taps))], dim=1)

    def unpacked(self, rows: Tensor) -> Tensor:
        """The activations in rows that ``packed`` made; their taps are given to the head's next forward."""
        if self.collect is None:
            return rows
        widths = [tap.width for tap in self.taps]
        activations, *taps = torch.split(rows, [rows.shape[1] - sum(widths), *widths], dim=1)
        self.collect.give(taps)
        return activations.reshape(len(rows), *self.crossing.fixed[1:])

    def clear(self) -> None:
        """Forget given taps: after a forward that failed, the next one would use them."""
        if self.collect is not None:
            self.collect.give(())


@dataclass(slots=True)
class _Trial:
    entry: nn.Module
    arguments: list[Any]
    answers: dict[nn.Module, list[Any]]


def find_boundary(network: Network, block: str) -> Boundary:
    """Run the network up to a block with two batch sizes, and compare.

    Raises:
        SplitError: if the block is never entered, or not exactly one tensor that depends on the images enters it.
    """
    trials = [_run_up_to(network, block, images) for images in trial_images(network)]
    first, second = trials
    if first.entry is not second.entry or list(first.answers) != list(second.answers):
        raise SplitError(f"{network.name} does not run its modules in the same order for every batch")
    crossing = [i for i, (a, b) in enumerate(zip(first.arguments, second.arguments, strict=True)) if _differ(a, b)]
    if len(crossing) != 1:
        raise SplitError(f"{len(crossing)} tensors enter block '{block}' of {network.name} instead of one")
    leaf = crossing[0]
    tensor = second.arguments[leaf]
    template = Template.of(first.arguments[leaf], tensor)
    if template.fixed[0] != 0 or template.per_image[0] < 1:
        raise SplitError(
            f"the first dimension of the tensor that enters block '{block}' of {network.name} is not the batch"
        )
    answers = {
        module: [tree_map(_template, call, second.answers[module][i]) for i, call in enumerate(calls)]
        for module, calls in first.answers.items()
        if any(_differ(a, b) for a, b in zip(*(tree_flatten(t.answers[module])[0] for t in trials), strict=True))
    }
    boundary = Boundary(
        network.module, first.entry, leaf, template, layout_of(tensor), Template.of(*trial_images(network)), answers
    )
    taps, collect = network.taps_before(block), collect_of(network)
    if taps and collect not in first.answers:  # they have not been put together yet
        if template.per_image[0] != 1:
            raise SplitError(f"{template.per_image[0]} rows per image enter block '{block}' of {network.name}")
        boundary.taps, boundary.collect = taps, collect
    return boundary


def layout_of(tensor: Tensor) -> tuple[int, ...]:
    """The dimensions from the largest stride to the smallest; (0, 2, 3, 1) is channels_last."""
    strides = tensor.stride()
    return tuple(sorted(range(tensor.dim()), key=lambda dim: -strides[dim]))


def trial_images(network: Network) -> tuple[Tensor, Tensor]:
    """Two different batches of noise [B, 3, H, W], with the dtype, device and memory format of the network."""
    weights = list(network.module.parameters())
    like = next((w for w in weights if w.dim() == 4), weights[0])
    channels_last = like.dim() == 4 and not like.is_contiguous()
    generator = torch.Generator().manual_seed(0)
    size = network.preprocessing.image_size
    few, many = (
        torch.randn(batch, 3, size, size, generator=generator)
        .to(like.device, like.dtype)
        .contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        for batch in TRIAL_SIZES
    )
    return few, many


@contextmanager
def eval_for_trial(module: nn.Module) -> Iterator[None]:
    """Put all modules into eval mode within the ``with``; then restore modes, ``requires_grad`` and random state."""
    modes = {child: child.training for child in module.modules()}
    flags = {parameter: parameter.requires_grad for parameter in module.parameters()}
    module.eval()
    try:
        with forked_generators(next(iter(flags)).device):
            yield
    finally:
        for child, mode in modes.items():
            child.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


@torch.no_grad()
def _run_up_to(network: Network, block: str, images: Tensor) -> _Trial:
    entries = _possible_entries(network, block)
    answers: dict[nn.Module, list[Any]] = {}
    reached: list[tuple[nn.Module, list[Any]]] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module in entries:
            reached.append((module, tree_flatten((args, kwargs))[0]))
            raise ReachedEntryError

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        for inner in module.modules():
            if inner is not module:
                answers.pop(inner, None)  # only the result of the outermost finished module is needed
        answers.setdefault(module, []).append(output)

    handles = []
    for child in network.module.modules():
        if child is not network.module:
            handles.append(child.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(child.register_forward_hook(after))
    try:
        network.module.forward(images)
    except ReachedEntryError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if not reached:
        raise SplitError(f"the forward of {network.name} calls no module of block '{block}' or of those after it")
    entry, arguments = reached[0]
    return _Trial(entry, arguments, answers)


def _possible_entries(network: Network, block: str) -> set[nn.Module]:
    """Modules of the block and those after it; modules without tensors, such as pooling, may also run before it."""
    later = network.names[network.names.index(block) :]
    return {
        child
        for name in later
        for root in network.modules(name)
        for child in root.modules()
        if any(True for _ in child.parameters())
        or any(True for _ in child.buffers())
        or any(behaves_differently_in_training(part) for part in child.modules())
    }


def _differ(first: Any, second: Any) -> bool:
    """Whether a value depends on the images."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape != second.shape or not torch.equal(first, second)
    return False


def _template(first: Any, second: Any) -> Any:
    return Template.of(first, second) if isinstance(first, Tensor) else first
