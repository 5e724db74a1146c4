"""Solves the head: logistic regression on the features of the frozen network, written into the last layer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ftexp.config import Config
from ftexp.config.loss import CrossEntropyConfig
from ftexp.data.splitting.splits import Splits
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.models.depth_head import StandardisedLinear
from ftexp.probe.logistic import LogisticProblem
from ftexp.probe.strength import STRENGTHS, Chosen, soft_targets, solve_on_validation
from ftexp.training.imbalance import class_counts, class_weights
from ftexp.training.inputs.features import FeatureInputs, gathered, last_layer


@dataclass(frozen=True, slots=True)
class SolvedHead:
    """A solved head, without its weights.

    Attributes:
        chosen: the solution and its path.
        num_images: training images.
        num_features: features of each.
        blocks: the blocks whose outputs are among them, besides the network's own features before the last layer.
        pass_seconds: seconds for the pass over the images, or for reading what was cached.
        solve_seconds: seconds for all strengths, and for the chosen one to the end.
    """

    chosen: Chosen
    num_images: int
    num_features: int
    blocks: tuple[str, ...]
    pass_seconds: float
    solve_seconds: float


def solve_head(
    network: Network, features: FeatureInputs, config: Config, runtime: Runtime, splits: Splits
) -> SolvedHead:
    """Solve the head on the training images, with the strength that is best on validation; all ranks have to call it.

    The main process solves; all get the weights. The network has to be in eval mode.

    Args:
        network: its last layer gets the solution.
        features: the batches.
        config: ``train.metric`` chooses the strength, unless ``head.strength`` is set; smoothing and class weights are
            those of the loss.
        runtime: the device and the ranks.
        splits: the samples.
    """
    started, layer = time.perf_counter(), last_layer(network)
    train, val = (gathered(features.before_last, b, runtime) for b in (features.inputs.train, features.inputs.val))
    passed, counts = time.perf_counter(), class_counts(splits.train, splits.classes)

    def solve() -> SolvedHead:
        assert train is not None
        assert val is not None
        (values, labels), (val_values, val_labels) = train, val
        values, val_values = (_standardised(layer, features) for features in (values, val_values))
        parts = [] if isinstance(layer, StandardisedLinear) else [values.shape[1]]  # it has scaled them
        problem = LogisticProblem.of_targets(values, _targets(labels, counts, config), parts)
        strengths = STRENGTHS if config.head.strength is None else [config.head.strength]
        chosen = solve_on_validation(problem, val_values, val_labels, config.train.metric, strengths)
        seconds = passed - started, time.perf_counter() - passed
        blocks = tuple(tap.block for tap in network.taps)
        return SolvedHead(chosen, len(values), values.shape[1], blocks, *seconds)

    solved = runtime.ranks.broadcast(solve)
    _write(layer, solved.chosen.solution.weight, solved.chosen.solution.bias)
    return solved


def _targets(labels: Tensor, counts: Sequence[int], config: Config) -> Tensor:
    """The targets of cross-entropy with the smoothing and the weights of the loss, and of the sampler."""
    loss, smoothing, weights = config.loss, float(getattr(config.loss, "label_smoothing", 0.0)), None
    if isinstance(loss, CrossEntropyConfig):
        weights = class_weights(counts, loss.class_weights)
    targets = soft_targets(labels, len(counts), smoothing, weights)
    if config.data.sampler == "balanced":  # draws the images of all classes equally often
        targets /= torch.tensor(counts, dtype=torch.float64)[labels][:, None]
    return targets


def _standardised(layer: nn.Linear, features: Tensor) -> Tensor:
    """The features on which the weight of the layer acts."""
    return layer.standardise(features) if isinstance(layer, StandardisedLinear) else features


@torch.no_grad()
def _write(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
