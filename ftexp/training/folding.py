"""Trains convolutions together with the BatchNorm behind them, as one operator, while its statistics stay the same.

With fixed statistics, BatchNorm multiplies each channel by a factor and adds a number. Both can be moved into the
weight and the bias of the convolution, which are small, instead of being applied to its outputs, which are large.
Gradients reach the parameters of both layers and are the same up to rounding; the layers themselves do not change.

Source: the Tune mode of You et al. (2024), "Efficient ConvBN Blocks for Transfer Learning and Beyond".
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.layers.conv2d_same import conv2d_same
from torch import Tensor, nn

from ftexp.config import RuntimeConfig
from ftexp.finetune.batchnorm import batch_norms
from ftexp.finetune.phases import Phase
from ftexp.machine.generators import forked_generators
from ftexp.machine.runtime import Runtime
from ftexp.training.inputs.batches import Forward

log = logging.getLogger(__name__)

# Layers of these types alone are folded, because others can do more in their forward.
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
NORMS = (nn.BatchNorm2d, BatchNormAct2d)
# Inputs that the first look runs, and how far outputs may differ there, relative to the largest one.
NUM_TRIED = 2
TOLERANCE = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02}

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]


def folds(phase: Phase, settings: RuntimeConfig, device: torch.device) -> bool:
    """Whether a phase trains with ``FoldedForward``: if it is not compiled, and its head is trained by steps."""
    wanted = device.type == "cpu" if settings.fold_batchnorm == "auto" else bool(settings.fold_batchnorm)
    return wanted and not phase.compiled and not phase.solved


class FoldedForward:
    """A forward that folds BatchNorm layers into the convolutions before them, where gradients are computed.

    Which layers follow each other is seen at the first call. A pair is folded if the convolution is trained: where it
    is frozen, it would need a gradient that it does not need otherwise. Without gradients nothing is folded, so scores
    are those of the network to the last bit.

    Args:
        forward: function from inputs [B, ...] to logits [B, C].
        module: the network that it runs, wholly or in part, in the modes of training.
        runtime: the device and the precision.
    """

    def __init__(self, forward: Forward, module: nn.Module, runtime: Runtime) -> None:
        self._forward = forward
        self._module = module
        self._runtime = runtime
        self._pairs: list[Pair] | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs [B, ...] -> logits [B, C]."""
        if not torch.is_grad_enabled() or len(inputs) == 0:
            return self._forward(inputs)
        if self._pairs is None:
            self._pairs = self._find(inputs[:NUM_TRIED])
        with _folded(self._pairs):
            return self._forward(inputs)

    def _find(self, inputs: Tensor) -> list[Pair]:
        """The pairs to fold; none if the outputs would be others."""
        if any(norm.training for norm in batch_norms(self._module)):
            return []
        with torch.no_grad():
            plain, pairs = self._observed(inputs)
            if not pairs:
                return []
            with _folded(pairs), forked_generators(inputs.device):
                folded = self._forward(inputs)
        difference = (folded.float() - plain.float()).abs().max().item()
        if difference > TOLERANCE[self._runtime.precision] * plain.float().abs().max().item():
            log.info("folding off: with BatchNorm in the convolutions, the outputs would differ by %.2g", difference)
            return []
        log.debug("folding %d BatchNorms are computed in the convolutions before them", len(pairs))
        return pairs

    def _observed(self, inputs: Tensor) -> tuple[Tensor, list[Pair]]:
        """The outputs, and the pairs of layers of which one gets what the other has just returned."""
        made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by the identity of the output, which is held here
        seen: list[tuple[nn.Conv2d | None, nn.BatchNorm2d]] = []

        def after(layer: nn.Conv2d, _: nn.Module, __: object, output: Tensor) -> None:
            made[id(output)] = layer, output

        def before(norm: nn.BatchNorm2d, _: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen.append((made[id(args[0])][0] if id(args[0]) in made else None, norm))

        hooks = []
        for layer in self._module.modules():
            # The layer is given to the hook, because the suffix of a network calls copies that share their hooks.
            if type(layer) in CONVOLUTIONS and isinstance(layer, nn.Conv2d):
                hooks.append(layer.register_forward_hook(partial(after, layer)))
            elif type(layer) in NORMS and isinstance(layer, nn.BatchNorm2d):
                hooks.append(layer.register_forward_pre_hook(partial(before, layer)))
        try:
            with forked_generators(inputs.device):
                plain = self._forward(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        layers = [layer for pair in seen for layer in pair]
        # A layer that is called twice has two neighbours.
        return plain, [(conv, norm) for conv, norm in seen if conv is not None and _can_fold(conv, norm, layers)]


def _can_fold(conv: nn.Conv2d, norm: nn.BatchNorm2d, called: list[nn.Conv2d | nn.BatchNorm2d | None]) -> bool:
    once = sum(layer is conv for layer in called) == 1 and sum(layer is norm for layer in called) == 1
    unchanged = "forward" not in conv.__dict__ and "forward" not in norm.__dict__
    return once and unchanged and conv.weight.requires_grad and norm.running_var is not None


@contextmanager
def _folded(pairs: list[Pair]) -> Iterator[None]:
    try:
        for conv, norm in pairs:
            conv.forward = partial(_convolved_and_normalised, conv, norm)  # type: ignore[method-assign]
            norm.forward = partial(_activated, norm)  # type: ignore[method-assign]
        yield
    finally:
        for layer in (layer for pair in pairs for layer in pair):
            layer.__dict__.pop("forward", None)


def _convolved_and_normalised(conv: nn.Conv2d, norm: nn.BatchNorm2d, inputs: Tensor) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        factor = factor * norm.weight
    centre = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    bias = -centre * factor if norm.bias is None else torch.addcmul(norm.bias, centre, factor, value=-1)
    weight = conv.weight * factor.view(-1, 1, 1, 1)
    outputs: Tensor
    if isinstance(conv, Conv2dSame):
        outputs = conv2d_same(inputs, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    else:
        outputs = conv._conv_forward(inputs, weight, bias)
    return outputs


def _activated(norm: nn.BatchNorm2d, inputs: Tensor) -> Tensor:
    """What is left of the layer: the activation in timm's."""
    if isinstance(norm, BatchNormAct2d):
        outputs: Tensor = norm.act(norm.drop(inputs))
        return outputs
    return inputs
