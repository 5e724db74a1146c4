"""``train.wise_ft``: averages the best weights of a run with those that it started from, if validation prefers that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch

from ftexp.data.samples import Sample
from ftexp.evaluation.scores import Scores
from ftexp.metric_names import METRICS
from ftexp.training.inputs.batches import Batches, Forward
from ftexp.training.inputs.input_source import InputSource
from ftexp.training.phase_loop import PhaseLoop
from ftexp.training.starting_weights import apply_wise_ft, backbone_state

log = logging.getLogger(__name__)


def average_with_start(
    loop: PhaseLoop, source: InputSource, val: Sequence[Sample], score: Callable[[Forward, Batches], Scores]
) -> None:
    """Replace the best weights, which are in the network, by their best average with the starting weights.

    Args:
        loop: the loop that trained the network, with its starting weights and its checkpoints.
        source: opens the batches, and closes them.
        val: the validation samples.
        score: scores a forward on batches.
    """
    network, config, best = loop.network, loop.config, loop.checkpoints.best
    assert best is not None
    metric, alphas = config.train.metric, [1.0, *config.train.wise_ft]
    if all(torch.equal(loop.starting_weights[name], now) for name, now in backbone_state(network).items()):
        log.info("wise-ft nothing to average: the best weights below the head are those of the start")
        return
    alone, label = best.scores.metric(metric), METRICS[metric].label
    with source:
        network.module.eval()
        scored = partial(score, network.module, source.for_scoring(val))
        alpha, scores = apply_wise_ft(network, loop.starting_weights, alphas, scored, metric)
        if alpha == 1:
            log.info("wise-ft no average with the starting weights is better than %s %.4f", label, alone)
        else:
            made_of = f"{alpha:g} x the trained and {1 - alpha:g} x the starting weights"
            log.info("wise-ft %s %.4f -> %.4f with %s", label, alone, scores.metric(metric), made_of)
        loop.checkpoints.replace_best(scores, alpha)
