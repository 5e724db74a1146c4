"""What enters the last layer of the head, for every training and validation image, from one pass of the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ftexp.finetune.phases import Phase
from ftexp.machine.runtime import Runtime
from ftexp.models.block_boundary import eval_for_trial, trial_images
from ftexp.models.blocks import Network
from ftexp.training.inputs.batches import Batches, Forward, Inputs
from ftexp.training.inputs.input_source import InputSource
from ftexp.training.losses import CrossEntropy


@dataclass(frozen=True, slots=True)
class FeatureInputs:
    """The batches of a network whose last layer is solved: not shuffled and not augmented.

    Attributes:
        inputs: the batches, and the whole forward for them.
        before_last: function from a batch's inputs to features [B, D].
    """

    inputs: Inputs
    before_last: Forward


def last_layer(network: Network) -> nn.Linear:
    """The layer whose outputs are the logits; call it only for a network that ``why_unsolvable`` accepts."""
    layer = network.module.get_submodule(network.heads[0])
    assert isinstance(layer, nn.Linear)
    return layer


def why_unsolvable(network: Network) -> str | None:
    """Why the head of a network cannot be solved as one linear layer on features; None if it can."""
    if len(network.heads) != 1:
        return f"{network.name} has {len(network.heads)} heads"
    layer = network.module.get_submodule(network.heads[0])
    if not isinstance(layer, nn.Linear) or "bias" not in dict(layer.named_parameters()):
        kind = type(layer).__name__
        return f"the head of {network.name}, {network.heads[0]}, is a {kind}, not a linear layer with a bias"
    with torch.no_grad(), eval_for_trial(network.module):
        images = trial_images(network)[0]
        logits, features = network.module.forward(images), _features(network, images)
        alike = features.ndim == 2 and torch.allclose(layer(features), logits, rtol=1e-3, atol=1e-3)
    return None if alike else f"the outputs of {network.name} are not those of its last layer, {network.heads[0]}"


def feature_inputs(source: InputSource, network: Network, phase: Phase, runtime: Runtime) -> FeatureInputs:
    """Open the batches for solving the head; the network has to be in eval mode.

    Args:
        source: opens the batches, and closes them.
        network: the network; its last layer is replaced while the network is cut, and then put back.
        phase: whose settings are used; nothing but the head learns.
        runtime: the device and the ranks.
    """
    layer = last_layer(network)
    with _without_last_layer(network):
        before, train, val = source.in_order(phase)
    before_last = partial(_features, network) if before is network.module else before

    def forward(inputs: Tensor) -> Tensor:
        logits: Tensor = layer(before_last(inputs))
        return logits

    return FeatureInputs(Inputs(network, forward, train, val, runtime, CrossEntropy(0.0)), before_last)


def gathered(before_last: Forward, batches: Batches, runtime: Runtime) -> tuple[Tensor, Tensor] | None:
    """Features float32 [N, D] and labels int64 [N] of all batches on the CPU, in the main process; None in the others.

    Their order is that of the processes, and then of the batches.
    """
    parts, labels = [], []
    with torch.no_grad():
        for inputs, of_batch in batches.epoch(0):
            if len(of_batch) == 0:
                continue
            with runtime.autocast():
                parts.append(before_last(inputs).float().cpu())
            labels.append(of_batch.cpu())
    every = runtime.ranks.all_gather((torch.cat(parts), torch.cat(labels)))
    if not runtime.ranks.is_main:
        return None
    return torch.cat([features for features, _ in every]), torch.cat([of for _, of in every])


def _features(network: Network, images: Tensor) -> Tensor:
    with _without_last_layer(network):
        features: Tensor = network.module.forward(images)
    return features


@contextmanager
def _without_last_layer(network: Network) -> Iterator[None]:
    """The network gives what would enter its last layer."""
    layer, nothing = last_layer(network), nn.Identity()
    nothing.register_buffer("marks_the_head", torch.empty(0), persistent=False)  # a cut is only found at tensors
    network.module.set_submodule(network.heads[0], nothing)
    try:
        yield
    finally:
        network.module.set_submodule(network.heads[0], layer)
