"""First steps by hand, at the point 1 with the gradient 2, the rate 0.1 and the decay 0.5."""

from __future__ import annotations

import pytest
import torch
from conftest import Compose
from torch import nn

from ftexp.config.optim import OPTIMIZERS
from ftexp.errors import ConfigError
from ftexp.finetune.optimizers import BUILDERS, build_optimizer, eager
from ftexp.finetune.param_groups import ParamGroup

FIRST_STEPS = {
    "adamw": 1 * (1 - 0.05) - 0.1,  # decay, then the gradient over its own size
    "lion": 1 * (1 - 0.05) - 0.1,  # decay, then the sign
    "adan": (1 - 0.1) / (1 + 0.05),  # the gradient over its own size, then a proximal decay
    "sgd": 1 - 0.1 * (2 + 0.5) * 1.9,  # decay as a gradient; Nesterov looks ahead by 0.9
}


def test_every_optimizer_of_the_schema_has_its_entry() -> None:
    assert BUILDERS.keys() == set(OPTIMIZERS.values())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.name=lion",
            r"optimizer\.name=lion does not choose the optimizer\. Use optimizer=NAME with one of adamw, sgd",
        ),
        ("scheduler.name=plateau", r"scheduler\.name=plateau does not choose a scheduler\. Use scheduler=plateau"),
    ],
)
def test_a_name_alone_chooses_nothing(configure: Compose, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(override)


@pytest.mark.parametrize(("name", "after"), FIRST_STEPS.items())
def test_the_first_step_by_hand(configure: Compose, name: str, after: float) -> None:
    weight, plain = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    groups = [
        ParamGroup("head", "head", 0.1, 0.5, ("weight",), (weight,)),
        ParamGroup("stem", "vector", 0.01, 0.0, ("plain",), (plain,)),
    ]
    config = configure(f"optimizer={name}").optimizer
    optimizer = build_optimizer(config, groups, torch.device("cpu"))
    weight.grad, plain.grad = torch.tensor([2.0]), torch.tensor([2.0])
    optimizer.step()
    assert weight.item() == pytest.approx(after)
    assert plain.item() == pytest.approx(1 - (0.01 * 2 * 1.9 if name == "sgd" else 0.01))
    assert [(group["block"], group["role"]) for group in optimizer.param_groups] == [
        ("head", "head"),
        ("stem", "vector"),
    ]


def test_an_eager_optimizer_is_torchs() -> None:
    weights = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    plain, ours = torch.optim.AdamW([weights[0]], lr=0.1), eager(torch.optim.AdamW)([weights[1]], lr=0.1)
    for step in range(4):
        for weight, optimizer in zip(weights, (plain, ours), strict=True):
            optimizer.zero_grad()
            assert weight.grad is None
            (weight * torch.tensor([[1.0, -2.0], [3.0, step]])).square().sum().backward()
            optimizer.step()
    assert torch.equal(*weights)
    restored = eager(torch.optim.AdamW)([nn.Parameter(torch.ones(2, 2))])
    restored.load_state_dict(plain.state_dict())
    assert str(restored.state_dict()) == str(ours.state_dict()) == str(plain.state_dict())
    assert (type(ours).__name__, type(ours).__mro__[1]) == ("AdamW", torch.optim.AdamW)


@pytest.mark.parametrize("name", [name for name, kind in OPTIMIZERS.items() if hasattr(kind, "betas")])
def test_betas_reach_the_optimizer(configure: Compose, name: str) -> None:
    betas = (0.5, 0.6, 0.7)[: len(configure(f"optimizer={name}").optimizer.betas)]
    config = configure(f"optimizer={name}", f"optimizer.betas={list(betas)}").optimizer
    groups = [ParamGroup("head", "head", 0.1, 0.5, ("weight",), (nn.Parameter(torch.ones(1)),))]
    optimizer = build_optimizer(config, groups, torch.device("cpu"))
    assert optimizer.param_groups[0]["betas"] == betas
