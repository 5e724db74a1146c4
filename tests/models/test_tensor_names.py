"""The names of a file's tensors, without what training scripts put in front of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ftexp.errors import WeightsError
from ftexp.models.tensor_names import named_as
from ftexp.models.weights_file import WeightsFile


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
        self.fc = nn.Linear(4, 2)


OWN = list(Net().state_dict())


def renamed(*names: str, module: nn.Module | None = None) -> WeightsFile:
    file = WeightsFile("a.pth", {name: torch.zeros(1) for name in names})
    return named_as(module or Net(), file)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "net.",
        "model.module._orig_mod.",
        "model.backbone.",
        "backbone.body.",
        "timm_model.",
        "_forward_module.model.",
    ],
)
def test_whatever_stands_in_front_of_all_names_is_taken_off(prefix: str) -> None:
    file = renamed(*(prefix + name for name in OWN))
    assert list(file.tensors) == OWN
    assert file.left_out == ()


@pytest.mark.parametrize("prefix", ["model.", "net.module.", "body.", "0."])
def test_other_parts_of_what_was_saved_are_left_out(prefix: str) -> None:
    others = ["criterion.weight", "ema_n", "metrics.acc.confmat"]
    file = renamed(*others, *(prefix + name for name in OWN))
    assert list(file.tensors) == OWN
    assert sorted(file.left_out) == sorted(others)


def test_a_wrapper_inside_the_network_is_taken_off() -> None:
    assert list(renamed("model.body._orig_mod.0.weight", "model.fc.bias").tensors) == ["body.0.weight", "fc.bias"]


def test_a_backbone_alone_is_found() -> None:
    file = renamed(*(f"encoder.{name}" for name in OWN if name.startswith("body")), "classifier.weight")
    assert list(file.tensors) == [name for name in OWN if name.startswith("body")]
    assert file.left_out == ("classifier.weight",)


def test_a_network_with_a_part_called_model_keeps_it() -> None:
    network = nn.ModuleDict({"model": Net()})
    names = list(network.state_dict())
    assert list(renamed(*names, module=network).tensors) == names
    assert list(renamed(*(f"model.{name}" for name in names), module=network).tensors) == names


def test_averaged_weights_come_before_the_others() -> None:
    file = renamed(*(f"net.{name}" for name in OWN), *(f"ema_net.{name}" for name in OWN))
    assert list(file.tensors) == OWN
    assert file.left_out == tuple(f"net.{name}" for name in OWN)


def test_two_networks_that_fit_are_not_chosen_between() -> None:
    with pytest.raises(WeightsError, match=r"a\.pth holds 2 networks that fit: encoder_k and encoder_q\."):
        renamed(*(f"encoder_q.{name}" for name in OWN), *(f"encoder_k.{name}" for name in OWN))


def test_names_of_another_network_stay_for_the_message() -> None:
    names = ["conv.weight", "trunk.0.bias", "head.fc.bias"]
    assert list(renamed(*names).tensors) == names
