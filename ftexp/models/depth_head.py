"""A head on all depths: its last layer sees the pooled outputs of earlier blocks beside the network's own features.

The network stays one module that runs its own forward. Where a tapped output enters the next block, a hook averages it
over its places; ``Collect``, just before the last layer, puts the averages in front of the features.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftexp.models.blocks import Network, Tap

# The module path of the last layer below the path that it had before.
LAST = "last"
# Parts of unit length whose features deviate by less than this are constant, up to rounding.
CONSTANT = 1e-7


class Collect(nn.Module):
    """Puts the taps of a forward, from the first block on, in front of the features before the last layer.

    Args:
        num_taps: number of taps.
    """

    def __init__(self, num_taps: int) -> None:
        super().__init__()
        self._num_taps = num_taps
        # By thread: a server runs several forwards of one network at the same time.
        self._taken: dict[tuple[int, int], Tensor] = {}
        self._given: dict[int, Sequence[Tensor]] = {}

    def take(self, number: int, tap: Tensor) -> None:
        """Keep the tap of that number, [B, C], until the features come."""
        self._taken[threading.get_ident(), number] = tap

    def taken(self, count: int, first: int = 0) -> list[Tensor]:
        """Hand out the taps from ``first`` to ``count``, which a forward of this thread has left."""
        thread = threading.get_ident()
        return [self._taken.pop((thread, number)) for number in range(first, count)]

    def give(self, taps: Sequence[Tensor]) -> None:
        """Use these in the place of the first taps of this thread's next forward, which does not run their blocks."""
        self._given[threading.get_ident()] = taps

    def forward(self, features: Tensor) -> Tensor:
        """Args: features [B, D]. Returns: taps and features [B, C1 + C2 + ... + D], in the dtype of the features."""
        given = self._given.pop(threading.get_ident(), ())
        taps = [*given, *self.taken(self._num_taps, first=len(given))]
        return torch.cat([*(tap.to(features.dtype) for tap in taps), features], dim=1)


class StandardisedLinear(nn.Linear):
    """A linear layer on parts of features, each brought to unit length, centred and scaled by one number.

    The mean variance of a part is ``(width of the last part / width) ** 0.5`` afterwards: under one penalty on all
    weights, the few features of early blocks then say more than their number. This, unit length, and one number instead
    of one per feature are measured in benchmarks/results.md, "The depth of the head"; Head2Toe has unit length too
    (Evci et al., 2022, arXiv 2201.03529).

    Args:
        widths: the number of features of each part, D together.
        out_features: the number C of outputs.

    Attributes:
        mean: float32 [D], of the features at unit length; 0 before ``set_statistics``.
        scale: float32 [D], by which the difference from the mean is multiplied; 0 for a part that is constant.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, widths: Sequence[int], out_features: int) -> None:
        super().__init__(sum(widths), out_features)
        self._widths = tuple(widths)
        self.register_buffer("mean", torch.zeros(self.in_features))
        self.register_buffer("scale", torch.ones(self.in_features))

    def unit_length(self, features: Tensor) -> Tensor:
        """The features [B, D], in float32, with each part at unit length."""
        parts = torch.split(features.float(), list(self._widths), dim=1)
        return torch.cat([F.normalize(part, dim=1) for part in parts], dim=1)

    def standardise(self, features: Tensor) -> Tensor:
        """What the weight acts on, from features [B, D]; on their device."""
        mean, scale = self.mean.to(features.device), self.scale.to(features.device)
        return (self.unit_length(features) - mean) * scale

    def forward(self, features: Tensor) -> Tensor:
        """Args: features [B, D]. Returns: [B, C]."""
        return F.linear(self.standardise(features).to(self.weight.dtype), self.weight, self.bias)

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Standardise by these, float [D], of features at unit length."""
        self.mean.copy_(mean)
        parts = torch.split(deviation.double(), list(self._widths))
        for part, scale in zip(parts, torch.split(self.scale, list(self._widths)), strict=True):
            spread = float(part.square().mean().sqrt())
            scale.fill_((self._widths[-1] / len(part)) ** 0.25 / spread if spread > CONSTANT else 0.0)


def add_taps(network: Network, taps: Sequence[Tap]) -> tuple[Network, Callable[[], None]]:
    """Give a network a head that also takes the outputs of blocks; its last layer is new, without statistics.

    Args:
        network: with one linear last layer, which gets [B, D]; its module is changed in place.
        taps: from the first block on.

    Returns:
        The network with the new head, and a function that undoes the change of its module.
    """
    (path,) = network.heads
    module, layer = network.module, network.module.get_submodule(path)
    assert isinstance(layer, nn.Linear)
    last = StandardisedLinear([*(tap.width for tap in taps), layer.in_features], layer.out_features)
    collect = Collect(len(taps))
    module.set_submodule(path, _DepthHead(collect, last.to(layer.weight)))
    handles = [
        module.get_submodule(tap.entry).register_forward_pre_hook(_Take(collect, number, tap), with_kwargs=True)
        for number, tap in enumerate(taps)
    ]

    def undo() -> None:
        for handle in handles:
            handle.remove()
        module.set_submodule(path, layer)

    tapped = Network(
        module,
        network.blocks,
        head=f"{path}.{LAST}",
        preprocessing=network.preprocessing,
        name=network.name,
        num_classes=network.num_classes,
        taps=taps,
    )
    return tapped, undo


def collect_of(network: Network) -> Collect | None:
    """Where the taps of a network are put together; None if it has none."""
    return next((module for module in network.module.modules() if isinstance(module, Collect)), None)


class _DepthHead(nn.Module):
    def __init__(self, collect: Collect, last: StandardisedLinear) -> None:
        super().__init__()
        self.collect = collect
        self.last = last

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.last(self.collect(features))
        return logits


class _Take:
    """The hook of a tap: an object, so that a copy of the network takes into its own ``Collect``."""

    def __init__(self, collect: Collect, number: int, tap: Tap) -> None:
        self._collect = collect
        self._number = number
        self._tap = tap

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._collect.take(self._number, self._tap.pooled(args, kwargs))
