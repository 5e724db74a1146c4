"""The starting weights of a run: L2-SP pulls the training towards them, WiSE-FT averages its result with them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ftexp.errors import DivergedError
from ftexp.evaluation.scores import Scores
from ftexp.finetune.decay import decay_rules
from ftexp.metric_names import METRICS
from ftexp.models.blocks import HEAD, Network
from ftexp.models.eval_caches import drop_eval_caches

log = logging.getLogger(__name__)


def backbone_state(network: Network) -> dict[str, Tensor]:
    """Copies of all parameters and float buffers below the head, by their full names, on their device."""
    tensors = {
        name: tensor
        for block in network.names
        if block != HEAD
        for name, tensor in (*network.parameters(block).items(), *network.buffers(block).items())
    }
    return {name: tensor.detach().clone() for name, tensor in tensors.items() if tensor.is_floating_point()}


class L2SPPenalty:
    """L2-SP: adds the gradient of ``strength / 2 * |w - w_start|^2`` over the trainable backbone weights.

    It replaces weight decay in the backbone and applies to the weights that would decay. The head starts from random
    weights, so it keeps its plain weight decay.

    Args:
        network: the network that is trained.
        starting_weights: the starting weights of the backbone by full parameter name.
        strength: strength of the penalty; None: no penalty, and every call does nothing.

    Source: L2-SP (Li et al., 2018, arXiv 1802.01483).
    """

    def __init__(self, network: Network, starting_weights: Mapping[str, Tensor], strength: float | None) -> None:
        rules = decay_rules(network.module)
        learning = {} if strength is None else {n: p for n, p in network.module.named_parameters() if p.requires_grad}
        chosen = {name: p for name, p in learning.items() if name in starting_weights and rules[name].decays}
        self._parameters: Sequence[nn.Parameter] = list(chosen.values())
        self._starting_weights = [starting_weights[name] for name in chosen]
        self._strength = strength or 0.0

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add the penalty's gradients; to be called between the backward pass and the update."""
        used = [
            (p, p.grad, w) for p, w in zip(self._parameters, self._starting_weights, strict=True) if p.grad is not None
        ]
        if used:
            parameters, gradients, weights = zip(*used, strict=True)
            torch._foreach_add_(gradients, torch._foreach_sub(parameters, weights), alpha=self._strength)


@torch.no_grad()
def apply_wise_ft(
    network: Network,
    starting_weights: Mapping[str, Tensor],
    alphas: Sequence[float],
    score: Callable[[], Scores],
    metric: str,
) -> tuple[float, Scores]:
    """WiSE-FT: load the best of several averages of the starting and the final weights into the network.

    Every backbone tensor becomes ``(1 - alpha) * start + alpha * final``; the head keeps its final weights.

    Args:
        network: the network with its final weights.
        starting_weights: the starting weights of the backbone by full parameter name.
        alphas: shares of the final weights to try; of equally good ones, the first is taken.
        score: scores the network; an average for which it raises DivergedError is skipped.
        metric: the metric to choose by.

    Returns:
        The best alpha and its scores.

    Raises:
        DivergedError: that of the last average, when no average has a finite loss.

    Source: WiSE-FT (Wortsman et al., 2022, arXiv 2109.01903).
    """
    final_weights = backbone_state(network)
    scored: dict[float, Scores] = {}
    for alpha in alphas:
        _interpolate(network, starting_weights, final_weights, alpha)
        try:
            scored[alpha] = score()
        except DivergedError as error:
            if not scored and alpha == alphas[-1]:
                raise
            log.warning("wise-ft alpha %g is skipped. %s", alpha, error)
    best = max(scored, key=lambda alpha: METRICS[metric].gain(0.0, scored[alpha].metric(metric)))
    _interpolate(network, starting_weights, final_weights, best)
    return best, scored[best]


def _interpolate(
    network: Network, starting_weights: Mapping[str, Tensor], final_weights: Mapping[str, Tensor], alpha: float
) -> None:
    state = network.module.state_dict(keep_vars=True)
    for name, tensor in final_weights.items():
        if name in state:
            state[name].copy_(torch.lerp(starting_weights[name], tensor, alpha))
    drop_eval_caches(network.module)
