from __future__ import annotations

import pytest
import torch
from conftest import make_phase
from torch import nn

from ftexp.finetune.freezing import open_blocks
from ftexp.models.blocks import Network
from ftexp.training.ema import Ema, build_ema


def test_averages_by_hand() -> None:
    """Warm-up decays 2/11 and 3/12, then the configured 0.3, for 4/13 is above it."""
    tensor = torch.zeros(1)
    ema = Ema(nn.Module(), [tensor], 0.3)
    average = 0.0
    for value, decay in ((1.0, 2 / 11), (2.0, 3 / 12), (4.0, 0.3), (4.0, 0.3)):
        tensor.fill_(value)
        ema.update()
        average = decay * average + (1 - decay) * value
        with ema.applied():
            assert tensor.item() == pytest.approx(average)
        assert tensor.item() == value


def test_averages_are_put_back_as_copies_on_the_device_of_the_weights() -> None:
    """Those of a run that is resumed were loaded to the CPU."""
    saved = torch.ones(1)
    for device in ("meta", "cpu"):
        ema = Ema(nn.Module(), [torch.zeros(1, device=device)], 0.9)
        ema.put_back([saved])
        ema.update()
        assert ema.averages()[0].device.type == device
    assert saved == 1


def test_an_error_within_puts_the_weights_back() -> None:
    tensor = torch.zeros(1)
    ema = Ema(nn.Module(), [tensor], 0.9)
    tensor.fill_(5.0)
    with pytest.raises(KeyError), ema.applied():
        raise KeyError
    assert tensor.item() == 5.0


def names_that_swap(network: Network, policy: str) -> set[str]:
    phase = make_phase("body", "head", policy=policy)
    open_blocks(network, phase)
    ema = build_ema(network, phase, 0.9)
    state = network.module.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    for tensor in state.values():
        tensor.add_(1)
    with ema.applied():
        return {name for name, tensor in state.items() if torch.equal(tensor, before[name])}


def test_what_learns_is_averaged_and_nothing_frozen(network: Network) -> None:
    weights = {"body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "token", "fc.weight", "fc.bias"}
    assert names_that_swap(network, "eval") == weights


def test_statistics_that_move_are_averaged_but_not_the_counter(network: Network) -> None:
    moving = names_that_swap(network, "train") - names_that_swap(network, "eval")
    assert moving == {"body.1.running_mean", "body.1.running_var"}


def test_without_a_decay_nothing_is_kept(network: Network) -> None:
    phase = make_phase("head")
    open_blocks(network, phase)
    ema = build_ema(network, phase, None)
    with torch.no_grad():
        network.module.fc.weight.add_(1)
    ema.update()
    now = network.module.fc.weight.detach().clone()
    with ema.applied():
        assert torch.equal(network.module.fc.weight, now)
