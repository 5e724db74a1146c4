"""Compiled code on the CPU through backends that count, and that fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Compose, TinyNet, make_phase
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from ftexp.machine.distributed import Ranks
from ftexp.machine.runtime import prepare_runtime
from ftexp.models.blocks import Network
from ftexp.training import compilation
from ftexp.training.compilation import MAX_REASON, CompiledForward, phase_forward
from ftexp.training.inputs.batches import Inputs

IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Backend = Callable[..., Any]


@pytest.fixture
def net() -> TinyNet:
    torch.manual_seed(0)
    return TinyNet().eval()


def counting() -> tuple[list[int], Backend]:
    """A backend, and the number of inputs of each graph that it was given."""
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        compiled.append(len(inputs))
        return graph.forward

    return compiled, backend


def failing(error: Exception) -> Backend:
    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        raise error

    return backend


def backward_failing(error: Exception) -> Backend:
    """Compiles forward passes; fails at the first backward pass, which torch compiles apart."""

    def passing(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        return make_boxed_func(graph.forward)

    return aot_autograd(fw_compiler=passing, inference_compiler=passing, bw_compiler=failing(error))


def part_of(net: TinyNet, part: str) -> Callable[[torch.Tensor], torch.Tensor]:
    return net if part == "network" else (lambda images: net(images))


@pytest.mark.parametrize(("part", "layout"), [("network", torch.channels_last), ("suffix", torch.contiguous_format)])
def test_one_compilation_for_training_and_one_for_scoring(net: TinyNet, part: str, layout: torch.memory_format) -> None:
    compiled, backend = counting()
    net.to(memory_format=layout)
    forward = CompiledForward(part_of(net, part), 8, 8, backend=backend)
    for _ in range(2):
        for size in (8, 3, 1):
            net.train()
            forward(IMAGES[:size].to(memory_format=layout)).sum().backward()
            net.eval()
            with torch.inference_mode():
                logits = forward(IMAGES[:size].clone().to(memory_format=layout))  # as batches are: made in this mode
                assert logits.shape == (size, 4)
    assert len(compiled) == 2
    assert set(net.state_dict()) == set(TinyNet().state_dict())


def test_a_short_batch_of_training_is_trained_on_as_it_is(net: TinyNet) -> None:
    """With its own BatchNorm statistics and its own gradient."""
    compiled, backend = counting()
    torch.manual_seed(0)
    plain = TinyNet()
    forward = CompiledForward(net.train(), 8, 8, backend=backend)
    for call in (forward, plain.train()):
        torch.manual_seed(1)
        call(IMAGES[:3]).square().sum().backward()
    assert compiled == []
    for (name, one), other in zip(net.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name
    assert torch.equal(net.stem[1].running_mean, plain.stem[1].running_mean)


def test_whole_batches_may_differ_between_training_and_scoring(net: TinyNet) -> None:
    compiled, backend = counting()
    forward = CompiledForward(net, 4, 6, backend=backend)
    forward(IMAGES[:4])
    with torch.inference_mode():
        for size in (6, 5):
            forward(IMAGES[:size].clone())
    assert len(compiled) == 2
    assert compiled[0] == compiled[1], "no size is an input: each graph is for its own"


@pytest.mark.parametrize(
    "inputs",
    [
        IMAGES[:3],
        IMAGES[:3].to(memory_format=torch.channels_last),
        IMAGES[:1].to(memory_format=torch.channels_last),
        IMAGES[:, :, :4, :4][:3],
        IMAGES[:3, :, :1, :1].expand(3, 3, 8, 8),
        IMAGES[:3].flip(0),
    ],
    ids=["contiguous", "channels_last", "one", "a window", "expanded", "flipped"],
)
def test_a_last_batch_that_is_filled_up_gets_the_logits_it_would_have_had(net: TinyNet, inputs: torch.Tensor) -> None:
    forward = CompiledForward(net, 8, 8, backend="eager")
    with torch.inference_mode():
        torch.testing.assert_close(forward(inputs), net(inputs), rtol=1e-6, atol=1e-6)


def test_a_rank_without_images_has_no_logits(net: TinyNet) -> None:
    compiled, backend = counting()
    forward = CompiledForward(net, 8, 8, backend=backend)
    with torch.inference_mode():
        assert forward(IMAGES[:0]).shape == (0, 4)
    assert compiled == []


@pytest.mark.parametrize(
    ("part", "backend"), [("network", failing), ("suffix", failing), ("network", backward_failing)]
)
def test_where_compiling_fails_it_goes_on_eagerly_with_one_line(
    net: TinyNet, part: str, backend: Callable[[Exception], Backend], caplog: pytest.LogCaptureFixture
) -> None:
    told = RuntimeError("no compiler here\nand a long story" + 300 * ".")
    forward = CompiledForward(part_of(net, part), 8, 8, backend=backend(told))
    for _ in range(3):
        logits = forward(IMAGES)
        logits.sum().backward()
        assert torch.equal(logits, net(IMAGES))
        with torch.inference_mode():
            assert torch.equal(forward(IMAGES.clone()), logits)
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("ftexp")]
    assert "no compiler here" in message
    assert message.endswith("continuing in eager mode (runtime.compile=false).")
    assert "\n" not in message
    assert len(message) < MAX_REASON + 100


@pytest.mark.parametrize(
    ("backend", "error"),
    [
        (failing, torch.OutOfMemoryError("CUDA out of memory.")),
        (backward_failing, RuntimeError("CUDA error: out of memory")),
    ],
)
def test_memory_that_runs_out_is_no_failure_of_the_compiler(
    net: TinyNet, error: Exception, backend: Callable[[Exception], Backend], caplog: pytest.LogCaptureFixture
) -> None:
    forward = CompiledForward(net, 8, 8, backend=backend(error))
    for _ in range(2):  # the second time, too: it has not given up
        with pytest.raises(RuntimeError, match="out of memory"):
            forward(IMAGES)
    assert [record for record in caplog.records if record.name.startswith("ftexp")] == []


def test_whoever_calls_the_network_itself_runs_no_compiled_code(net: TinyNet) -> None:
    """As the scoring of the test split does after training, whatever became of the compiler."""
    compiled, backend = counting()
    forward = CompiledForward(net, 8, 8, backend=backend)
    with torch.inference_mode():
        forward(IMAGES.clone())
        for size in (8, 5):
            net(IMAGES[:size].clone())
    assert len(compiled) == 1


def test_what_is_wrong_without_a_compiler_too_is_raised(net: TinyNet) -> None:
    with pytest.raises(RuntimeError, match="expected input"):
        CompiledForward(net, 8, 8, backend="eager")(IMAGES[:, :1])


@pytest.mark.parametrize("compiled", [True, False])
def test_whole_batches_are_this_ranks_part_of_the_first_ones(
    configure: Compose, network: Network, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    made: list[tuple[object, ...]] = []
    whole: list[tuple[object, ...]] = []
    monkeypatch.setattr(compilation, "CompiledForward", lambda _, *given, mode: made.append((*given, mode)))
    monkeypatch.setattr(compilation, "whole_batches", lambda _, *given: whole.append(given))
    settings = configure("runtime.device=cpu", "runtime.compile=true", "runtime.compile_mode=max-autotune").runtime
    train, val = SimpleNamespace(num_images=lambda _: 9), SimpleNamespace(num_images=lambda _: 5)
    runtime = prepare_runtime(settings, Ranks(1, 2))
    inputs = Inputs(network, network.module, train, val, runtime, nn.Identity())
    with phase_forward(replace(make_phase("head"), compiled=compiled), inputs, settings):
        pass
    assert made == ([(4, 2, "max-autotune")] if compiled else [])
    assert whole == [(network.module, 4, runtime)]


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_the_compiler_gets_the_mode_and_no_dynamic_shapes(
    net: TinyNet, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(torch, "compile", lambda _, **options: asked.append(options))
    CompiledForward(net, 8, 8, mode=mode)
    assert asked == [{"backend": "inductor", "dynamic": False, "mode": mode}]


@pytest.mark.parametrize(
    ("mode", "has_graphs"), [("default", False), ("reduce-overhead", True), ("max-autotune", True)]
)
def test_logits_outlive_the_memory_of_a_recorded_graph(
    net: TinyNet, monkeypatch: pytest.MonkeyPatch, mode: str, has_graphs: bool
) -> None:
    """The backend answers in the same memory each time, as CUDA graphs do, which have to know where a step begins."""

    def recorded(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        kept: list[torch.Tensor] = []

        def call(*given: torch.Tensor) -> list[torch.Tensor]:
            answers = graph.forward(*given)
            kept.extend(answers[len(kept) :])
            for memory, answer in zip(kept, answers, strict=True):
                memory.copy_(answer)
            return kept

        return call

    steps: list[None] = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append(None))
    forward = CompiledForward(net, 8, 8, mode=mode, backend=recorded)
    with torch.inference_mode():
        first = forward(IMAGES.clone())
        forward(IMAGES.flip(0))
        assert torch.equal(first, net(IMAGES)) == has_graphs
    assert len(steps) == (2 if has_graphs else 0)


def test_graphs_of_another_forward_are_forgotten_first(net: TinyNet) -> None:
    """Each forward is compiled anew by its own backend, however many have been before."""
    counts = []
    for _ in range(10):
        compiled, backend = counting()
        with torch.inference_mode():
            CompiledForward(net, 8, 8, backend=backend)(IMAGES.clone())
        counts.append(len(compiled))
    assert counts == [1] * 10
