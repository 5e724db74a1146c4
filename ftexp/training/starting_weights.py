"""The weights a run began with: what training is held near to, and what its result is averaged with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ftexp.errors import DivergedError
from ftexp.evaluation.metric_names import METRICS
from ftexp.evaluation.scores import Scores
from ftexp.finetune.decay import decay_rules
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


class StartPenalty:
    """Adds the gradient of ``strength / 2 * |w - start|^2`` over the backbone weights that learn.

    The weights are those that weight decay would apply to, which this takes the place of; the head, which has no start
    worth keeping, has its plain weight decay.

    Args:
        start: by name.
        strength: None: there is no penalty, and every call does nothing.

    Source: L2-SP (Li et al., 2018, arXiv 1802.01483).
    """

    def __init__(self, network: Network, start: Mapping[str, Tensor], strength: float | None) -> None:
        rules = decay_rules(network.module)
        learning = {} if strength is None else {n: p for n, p in network.module.named_parameters() if p.requires_grad}
        chosen = {name: p for name, p in learning.items() if name in start and rules[name].decays}
        self._parameters: Sequence[nn.Parameter] = list(chosen.values())
        self._start = [start[name] for name in chosen]
        self._strength = strength or 0.0

    @torch.no_grad()
    def add_gradients(self) -> None:
        """To be called between the backward pass and the update."""
        used = [
            (p, p.grad, start) for p, start in zip(self._parameters, self._start, strict=True) if p.grad is not None
        ]
        if used:
            parameters, gradients, start = zip(*used, strict=True)
            torch._foreach_add_(gradients, torch._foreach_sub(parameters, start), alpha=self._strength)


@torch.no_grad()
def best_blend(
    network: Network, start: Mapping[str, Tensor], alphas: Sequence[float], score: Callable[[], Scores], metric: str
) -> tuple[float, Scores]:
    """Put the best of several averages of start and end into the network.

    Every backbone tensor becomes ``(1 - alpha) * start + alpha * end``; the head stays as it ended.

    Args:
        alphas: shares of the end, in the order in which they are preferred among equals.
        score: scores the network as it is; an average for which it raises DivergedError is left out.
        metric: of the scores; the best value wins.

    Returns:
        The best share and its scores.

    Raises:
        DivergedError: the last one, when no average has a finite loss.

    Source: WiSE-FT (Wortsman et al., 2022, arXiv 2109.01903).
    """
    end = backbone_state(network)
    scored: dict[float, Scores] = {}
    for alpha in alphas:
        _blend(network, start, end, alpha)
        try:
            scored[alpha] = score()
        except DivergedError as error:
            if not scored and alpha == alphas[-1]:
                raise
            log.warning("wise-ft alpha %g is left out. %s", alpha, error)
    best = max(scored, key=lambda alpha: METRICS[metric].gain(0.0, scored[alpha].metric(metric)))
    _blend(network, start, end, best)
    return best, scored[best]


def _blend(network: Network, start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> None:
    state = network.module.state_dict(keep_vars=True)
    for name, tensor in end.items():
        if name in state:
            state[name].copy_(torch.lerp(start[name], tensor, alpha))
    drop_eval_caches(network.module)
