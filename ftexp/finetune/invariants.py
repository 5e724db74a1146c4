"""Checks after every epoch that buffers which are frozen have not changed."""

from __future__ import annotations

import torch

from ftexp.finetune.batchnorm import batch_norms, moving_batch_norms
from ftexp.finetune.frozen_modules import frozen_modules
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import Network


class BufferDriftError(RuntimeError):
    """A frozen buffer has changed; this is never a mistake of the user."""


class FrozenBuffers:
    """Keeps copies of the buffers of frozen blocks and modules, and of running statistics that bn_policy freezes.

    Create it once per phase, after ``open_blocks``. Buffers are small, so copies are compared bit by bit; a hash would
    have to read all of them too.
    """

    def __init__(self, network: Network, phase: Phase) -> None:
        self._network = network
        self._phase = phase
        promised = _promised(network, phase)
        self._before = {
            name: buffer.detach().clone() for name, buffer in network.module.named_buffers() if name in promised
        }

    def check(self) -> None:
        """Compare the buffers with their copies.

        Raises:
            BufferDriftError: if one has changed; the message names its layer.
        """
        now = dict(self._network.module.named_buffers())
        if not self._before:
            return
        # Read together, because every reading waits for the device.
        differ = torch.stack([_differs(before, now[name]) for name, before in self._before.items()]).tolist()
        moved = [name for name, differs in zip(self._before, differ, strict=True) if differs]
        if moved:
            layer, _, buffer = moved[0].rpartition(".")
            more = f", and {len(moved) - 1} more buffers" if len(moved) > 1 else ""
            raise BufferDriftError(
                f"{buffer} of the layer {layer} in block {self._network.block_of(moved[0])} changed in phase "
                f"{self._phase.name}{more}, although freezing or bn_policy keeps it constant. This is an error in "
                "ftexp or in the network's code, not in your settings."
            )


def _promised(network: Network, phase: Phase) -> set[str]:
    names = {name for block in network.names if block not in phase.learning for name in network.buffers(block)}
    frozen = {part for module in frozen_modules(network, phase) for part in module.modules()}
    kept = set(batch_norms(network.module)) - set(moving_batch_norms(network, phase))
    for path, layer in network.module.named_modules():
        if layer in frozen | kept:
            names |= {f"{path}.{name}" for name, _ in layer.named_buffers(recurse=False)}
    return names


def _differs(before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """Whether any value differs, as a bool [] on the device; NaN is equal to NaN."""
    both_nan = (before != before) & (now != now)
    return ((before != now) & ~both_nan).any()
