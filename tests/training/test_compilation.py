"""Compiled code on the CPU through backends that count, and that fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import TinyNet

from ftexp.training.compilation import CompiledForward

IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> TinyNet:
    torch.manual_seed(0)
    return TinyNet().eval()


def counting() -> tuple[list[int], Callable[..., Any]]:
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        compiled.append(len(inputs))
        return graph.forward

    return compiled, backend


def failing(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
    raise RuntimeError("no compiler here\nand a long story")


@pytest.mark.parametrize("part", ["network", "suffix"])
def test_one_compilation_for_training_and_one_for_scoring(network: TinyNet, part: str) -> None:
    compiled, backend = counting()
    forward = CompiledForward(network if part == "network" else (lambda x: network(x)), 8, backend=backend)
    for _ in range(2):
        network.train()
        forward(IMAGES).sum().backward()
        network.eval()
        with torch.inference_mode():
            for size in (8, 3):
                logits = forward(IMAGES[:size].clone())  # as batches are: made in this mode
    assert len(compiled) == 2
    assert logits.shape == (3, 4)
    assert set(network.state_dict()) == set(TinyNet().state_dict())


def test_a_last_batch_that_is_filled_up_gets_the_logits_it_would_have_had(network: TinyNet) -> None:
    forward = CompiledForward(network, 8, backend="eager")
    with torch.inference_mode():
        assert torch.equal(forward(IMAGES[:3]), network.forward(IMAGES)[:3])


@pytest.mark.parametrize("part", ["network", "suffix"])
def test_where_compiling_fails_it_goes_on_eagerly_with_one_line(
    network: TinyNet, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    forward = CompiledForward(network if part == "network" else (lambda x: network(x)), 8, backend=failing)
    for _ in range(3):
        assert torch.equal(forward(IMAGES), network.forward(IMAGES))
    assert torch.equal(network(IMAGES), network.forward(IMAGES))
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("ftexp")]
    assert "no compiler here" in message
    assert message.endswith("going on without (runtime.compile=false).")
    assert "\n" not in message


def test_what_is_wrong_without_a_compiler_too_is_raised(network: TinyNet) -> None:
    with pytest.raises(RuntimeError, match="expected input"):
        CompiledForward(network, 8, backend="eager")(IMAGES[:, :1])
