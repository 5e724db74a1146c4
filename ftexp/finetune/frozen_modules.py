"""The modules that a phase freezes: frozen blocks, and in the other blocks modules without trainable parameters."""

from __future__ import annotations

from collections.abc import Iterator, Set

from torch import nn

from ftexp.finetune.phases import Phase
from ftexp.models.blocks import Network


def frozen_modules(network: Network, phase: Phase) -> Iterator[nn.Module]:
    """The outermost modules that must be in eval mode: those of frozen blocks, and others whose parameters are frozen.

    A module without parameters, such as dropout, is treated like the module that contains it. Parameters that only
    bn_policy freezes do not count as frozen here, because that policy also decides about their layer's statistics.
    """
    for block in network.names:
        if block not in phase.learning:
            yield from network.modules(block)
        elif phase.part is not None:
            learning = {p for name, p in network.parameters(block).items() if phase.learns(block, name)}
            for module in network.modules(block):
                yield from _frozen_within(module, learning)


def _frozen_within(module: nn.Module, learning: Set[nn.Parameter]) -> Iterator[nn.Module]:
    parameters = set(module.parameters())
    if parameters and parameters.isdisjoint(learning):
        yield module
    elif not parameters <= learning:
        for child in module.children():
            yield from _frozen_within(child, learning)
