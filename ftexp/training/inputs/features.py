"""What enters the last layer of the head, for every training and validation image, from one pass of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ftexp.data.loading.sampler import EpochSampler
from ftexp.finetune.phases import Phase
from ftexp.machine.runtime import Runtime
from ftexp.machine.transfer import send
from ftexp.models.block_boundary import eval_for_trial, trial_images
from ftexp.models.blocks import Network
from ftexp.training.inputs.batches import Batch, Batches, Forward, Inputs, SampledBatches
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


class KnownBatches:
    """Batches of features that are in memory, in the order of the batches that they were computed from.

    Args:
        sampler: which samples are in which batch.
        parts: this rank's features [B, D] and labels [B] of every batch, on the CPU.
        device: where the network is.
    """

    def __init__(self, sampler: EpochSampler, parts: Sequence[Batch], device: torch.device) -> None:
        self._parts = tuple(parts)
        self._device = device
        self.sampler = sampler
        self.num_batches, self.num_samples = sampler.num_batches, sampler.num_samples
        self.num_images, self.paths = sampler.num_images, sampler.paths

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The features and labels, in the same order in every epoch, from batch ``start`` on."""
        for features, labels in self._parts[start:]:
            yield send(features, self._device), send(labels, self._device)

    def gathered_rows(self, runtime: Runtime) -> list[int]:
        """The numbers of the samples in the order of ``gathered``."""
        own = [row for batch in self.sampler.own_batches(0) for row in batch]
        return [row for part in runtime.ranks.all_gather(own) for row in part]

    def last(self, width: int) -> KnownBatches:
        """The same batches with the last features alone."""
        parts = [(features[:, -width:].clone(), labels) for features, labels in self._parts]
        return KnownBatches(self.sampler, parts, self._device)

    def close(self) -> None:
        """There is nothing to close."""


@dataclass(frozen=True, slots=True)
class KnownFeatures:
    """The features of all training and validation images before the first phase, from one pass.

    Attributes:
        train, val: features and labels; not shuffled and not augmented.
    """

    train: KnownBatches
    val: KnownBatches

    def last(self, width: int) -> KnownFeatures:
        """The last features alone."""
        return KnownFeatures(self.train.last(width), self.val.last(width))

    def inputs(self, network: Network, runtime: Runtime) -> FeatureInputs:
        """As ``feature_inputs``, without another pass."""
        layer = last_layer(network)
        return FeatureInputs(Inputs(network, layer, self.train, self.val, runtime, CrossEntropy(0.0)), _unchanged)


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
        logits = network.module.forward(images)
        with _without_last_layer(network):
            features = network.module.forward(images)
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
    before_last, train, val = _opened(source, network, phase)

    def forward(inputs: Tensor) -> Tensor:
        logits: Tensor = layer(before_last(inputs))
        return logits

    return FeatureInputs(Inputs(network, forward, train, val, runtime, CrossEntropy(0.0)), before_last)


def compute_features(source: InputSource, network: Network, phase: Phase, runtime: Runtime) -> KnownFeatures:
    """Run the network, in eval mode, once over all training and validation images; arguments as ``feature_inputs``."""
    before_last, *both = _opened(source, network, phase)
    train, val = (KnownBatches(b.sampler, list(_outputs(before_last, b, runtime)), runtime.device) for b in both)
    return KnownFeatures(train, val)


def gathered(before_last: Forward, batches: Batches, runtime: Runtime) -> tuple[Tensor, Tensor] | None:
    """Features float32 [N, D] and labels int64 [N] of all batches on the CPU, in the main process; None in the others.

    Their order is that of the processes, and then of the batches.
    """
    parts, labels = zip(*(batch for batch in _outputs(before_last, batches, runtime) if len(batch[1])), strict=True)
    every = runtime.ranks.all_gather((torch.cat(parts), torch.cat(labels)))
    if not runtime.ranks.is_main:
        return None
    return torch.cat([features for features, _ in every]), torch.cat([of for _, of in every])


def _opened(source: InputSource, network: Network, phase: Phase) -> tuple[Forward, SampledBatches, SampledBatches]:
    with _without_last_layer(network):
        before, train, val = source.in_order(phase)

    def before_last(inputs: Tensor) -> Tensor:
        with _without_last_layer(network):
            return before(inputs)

    return before_last, train, val


@torch.no_grad()
def _outputs(before_last: Forward, batches: Batches, runtime: Runtime) -> Iterator[Batch]:
    """This rank's features float32 [B, D] and labels of every batch, on the CPU."""
    for inputs, labels in batches.epoch(0):
        if len(labels) == 0:  # the last batch has fewer images than there are ranks
            yield torch.empty(0, 0), labels.cpu()
            continue
        with runtime.autocast():
            features = before_last(inputs)
        yield features.float().cpu(), labels.cpu()


def _unchanged(features: Tensor) -> Tensor:
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
