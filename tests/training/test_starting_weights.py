"""L2-SP and WiSE-FT against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_phase, scores_of

from ftexp.errors import DivergedError
from ftexp.evaluation.scores import Scores
from ftexp.finetune.freezing import open_blocks
from ftexp.finetune.param_groups import build_param_groups
from ftexp.models.blocks import Network
from ftexp.training.starting_weights import L2SPPenalty, apply_wise_ft, backbone_state


def test_l2_sp_pulls_backbone_weights_alone_by_strength_times_distance(network: Network) -> None:
    open_blocks(network, make_phase("body", "head"))
    penalty = L2SPPenalty(network, backbone_state(network), strength=0.5)
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.add_(3.0)
            parameter.grad = torch.ones_like(parameter)
    penalty.add_gradients()
    for name, parameter in network.module.named_parameters():
        assert parameter.grad is not None
        # The head, biases, norms, tokens and frozen blocks are not pulled.
        expected = 1 + (0.5 * 3.0 if name == "body.0.weight" else 0.0)
        torch.testing.assert_close(parameter.grad, torch.full_like(parameter, expected))


def test_without_a_strength_no_gradient_changes(network: Network) -> None:
    open_blocks(network, make_phase("body", "head"))
    penalty = L2SPPenalty(network, {}, strength=None)
    network.module.fc.weight.grad = torch.ones(4, 6)
    penalty.add_gradients()
    assert torch.equal(network.module.fc.weight.grad, torch.ones(4, 6))


def test_it_takes_the_place_of_the_backbones_weight_decay(network: Network) -> None:
    phase = make_phase("body", "head", weight_decay=0.1)
    open_blocks(network, phase)
    groups = build_param_groups(network, phase, decay_backbone=False)
    assert {(group.block, group.weight_decay) for group in groups} == {("body", 0.0), ("head", 0.1), ("head", 0.0)}
    assert sum(len(group.names) for group in groups) == 7


def scores_at(accuracy: float) -> Scores:
    labels = np.zeros(10, dtype=np.int64)
    return scores_of(labels, (np.arange(10) >= round(10 * accuracy)).astype(np.int64), 4)


def test_without_a_finite_loss_at_any_share_it_fails(network: Network) -> None:
    def score() -> Scores:
        raise DivergedError("NaN")

    with pytest.raises(DivergedError, match="NaN"):
        apply_wise_ft(network, backbone_state(network), [1.0, 0.5], score, "accuracy")


def test_wise_ft_interpolates_the_backbone_and_leaves_the_head(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    start = backbone_state(network)
    with torch.no_grad():
        for name, tensor in network.module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(start[name] + 4.0 if name in start else torch.full_like(tensor, 9.0))
    values = {1.0: 0.5, 0.25: 0.9, 0.75: 0.9}
    seen = []

    def score() -> Scores:
        share = ((network.module.stem[0].weight - start["stem.0.weight"]).mean() / 4).item()
        seen.append(round(share, 5))
        if seen[-1] == 0.5:
            raise DivergedError("NaN")
        return scores_at(values[seen[-1]])

    alpha, scores = apply_wise_ft(network, start, [1.0, 0.5, 0.25, 0.75], score, "accuracy")
    assert (alpha, scores.accuracy) == (0.25, 0.9)  # the first of equals
    assert seen == [1.0, 0.5, 0.25, 0.75]
    (message,) = caplog.messages
    assert message == "wise-ft alpha 0.5 is skipped. NaN"
    state = network.module.state_dict()
    for name in ("stem.0.weight", "stem.1.running_var", "body.1.bias", "token"):
        torch.testing.assert_close(state[name], start[name] + 1.0)
    assert (state["fc.weight"] == 9).all()
    assert state["stem.1.num_batches_tracked"] == 0
