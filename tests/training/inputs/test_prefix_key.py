"""The key of cached activations changes with everything that a forward pass depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.training.inputs import prefix_key
from ftexp.training.inputs.prefix_key import prefix_digest

CPU = Runtime(torch.device("cpu"), "fp32", False, torch.contiguous_format, 0)


def digest(network: Network, runtime: Runtime = CPU) -> str:
    return prefix_digest(network, "body", runtime)


@pytest.mark.parametrize(
    "other",
    [
        replace(CPU, device=torch.device("meta")),
        replace(CPU, precision="bf16"),
        replace(CPU, memory_format=torch.channels_last),
    ],
    ids=["device", "precision", "memory format"],
)
def test_it_knows_device_precision_and_memory_format(network: Network, other: Runtime) -> None:
    assert digest(network) == digest(network, replace(CPU, workers=3, compile=True))
    assert digest(network, other) != digest(network)


@pytest.mark.parametrize("library", ["torch", "torchvision", "timm"])
def test_it_knows_the_versions_of_the_libraries(
    network: Network, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    before = digest(network)
    monkeypatch.setattr(getattr(prefix_key, library), "__version__", "0.0.1")
    assert digest(network) != before


def test_it_knows_what_decodes_the_files(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(network)
    monkeypatch.setattr(prefix_key, "decoders", lambda: "pillow 0.0.1")
    assert digest(network) != before


@pytest.mark.parametrize(
    ("owner", "name", "answer"),
    [
        (torch, "are_deterministic_algorithms_enabled", True),
        (torch, "get_float32_matmul_precision", "medium"),
        (torch.backends.cpu, "get_cpu_capability", "AVX1024"),
        (prefix_key.platform, "machine", "riscv64"),
    ],
)
def test_it_knows_the_kernels_that_are_chosen(
    network: Network, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, answer: object
) -> None:
    before = digest(network)
    monkeypatch.setattr(owner, name, lambda: answer)
    assert digest(network) != before


def test_it_knows_the_graphics_card_and_its_libraries(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, digests = replace(CPU, device=torch.device("cuda")), set()
    for card, cudnn in (("H100", 91000), ("A100", 91000), ("A100", 92000)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, card=card: card)
        monkeypatch.setattr(torch.backends.cudnn, "version", lambda cudnn=cudnn: cudnn)
        digests.add(digest(network, runtime))
    assert len(digests) == 3


def changed_name(network: Network) -> None:
    network.name = "other"


def changed_preprocessing(network: Network) -> None:
    network.preprocessing = network.preprocessing.at(16)


def changed_weight(network: Network) -> None:
    next(network.module.stem.parameters()).data[0] += 1e-3


def changed_statistics(network: Network) -> None:
    network.module.stem[1].running_mean[0] += 1e-3


@pytest.mark.parametrize("change", [changed_name, changed_preprocessing, changed_weight, changed_statistics])
def test_it_knows_the_network(network: Network, change: Callable[[Network], None]) -> None:
    before = digest(network)
    change(network)
    assert digest(network) != before


def test_it_knows_devices_of_which_nothing_else_is_known(network: Network) -> None:
    assert len({digest(network, replace(CPU, device=torch.device(name))) for name in ("meta", "mps", "xpu")}) == 3


def test_blocks_that_learn_do_not_enter(network: Network) -> None:
    before = digest(network)
    network.module.token.data += 1
    assert digest(network) == before
    assert prefix_digest(network, "head", CPU) != before
