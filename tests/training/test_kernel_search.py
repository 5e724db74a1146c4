"""cuDNN searches for the fastest kernels where a run has enough steps with blocks in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Compose
from tiny_runs import NAMES, fresh_network

from ftexp.config import Config
from ftexp.data_identity import DataIdentity
from ftexp.finetune.phases import plan_phases
from ftexp.machine.device_kinds import KINDS
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.machine.runtime import prepare_runtime
from ftexp.models.blocks import Network
from ftexp.preparation.prepare import prepare
from ftexp.preparation.prepared import Prepared
from ftexp.run_identity import RunIdentity
from ftexp.training.kernel_search import choose_kernel_search

# 44 images in batches of 8 are 6 steps an epoch.
SETTINGS = ("train.batch_size=8", "runtime.device=cpu", "stage.gate=off")


@pytest.fixture(autouse=True)
def sixty_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    monkeypatch.setitem(KINDS, "cuda", replace(KINDS["cuda"], search_steps=60))
    yield
    torch.backends.cudnn.benchmark = before


def searches(configure: Compose, *settings: str, device: str = "cuda", solved: bool = False) -> bool:
    """Whether cuDNN searches, after a run whose choice was the opposite."""
    config, network = configure(*SETTINGS, *settings), fresh_network()
    runtime = replace(prepare_runtime(configure("runtime.device=cpu").runtime), device=torch.device(device))
    phases = [replace(phase, solved=solved) for phase in plan_phases(config, NAMES, network)]
    chosen = set()
    for before in (False, True):
        torch.backends.cudnn.benchmark = before
        choose_kernel_search(config, phases, network, 44, runtime)
        chosen.add(torch.backends.cudnn.benchmark)
    assert len(chosen) == 1 or device != "cuda"
    return chosen == {True}


def prepared_with_8_images(config: Config, network: Network, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """What a run with this network prepares, without reading images or weights."""
    splits = SimpleNamespace(classes=("a", "b"), train=[0] * 8, val=[])
    for name, instead in {
        "read_recorded": lambda *_, **__: splits,
        "locate_weights": lambda *_: None,
        "build_network": lambda *_: network,
        "_identify": lambda *_: None,
    }.items():
        monkeypatch.setattr(f"ftexp.preparation.prepare.{name}", instead)
    return prepare(config, folder, ONE_PROCESS, score_test=False)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("stage=full", "stage.epochs=10"), True),
        (("stage=full", "stage.epochs=9"), False),
        (("stage=full", "stage.epochs=10", "train.accumulate=2"), True),
        (("stage=full", "stage.epochs=10", "runtime.deterministic=true"), False),
        (("stage=staged", "stage.epochs=5"), True),  # the last blocks, then all; the head does not count
        (("stage=staged", "stage.epochs=4"), False),
        (("stage=head", "stage.epochs=99"), False),
        (("stage=head", "stage.epochs=10", "runtime.cache=off"), True),
    ],
)
def test_the_steps_of_all_phases_decide(configure: Compose, settings: tuple[str, ...], expected: bool) -> None:
    assert searches(configure, *settings) is expected


def test_a_solved_head_has_no_steps(configure: Compose) -> None:
    assert not searches(configure, "stage=head", "stage.epochs=10", "runtime.cache=off", solved=True)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_other_devices_have_no_such_search(configure: Compose, device: str) -> None:
    assert not searches(configure, "stage=full", "stage.epochs=99", device=device)
    assert torch.backends.cudnn.benchmark, "whoever uses CUDA beside the run chooses"


def test_a_run_chooses_before_it_trains_and_run_json_says_so(
    configure: Compose, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], search_steps=3))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "a GPU")
    for epochs, expected in ((2, False), (3, True)):  # of one batch each
        config = configure("runtime.device=cpu", "stage=full", f"stage.epochs={epochs}")
        prepared = prepared_with_8_images(config, network, tmp_path, monkeypatch)
        assert torch.backends.cudnn.benchmark is expected
        assert prepared.runtime.engine()["cudnn_benchmark"] is False, "the CPU does not use cuDNN"
        on_cuda = replace(prepared.runtime, device=torch.device("cuda"))
        assert on_cuda.engine()["cudnn_benchmark"] is expected


def test_a_run_takes_the_memory_format_for_its_number_of_images(
    configure: Compose, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("runtime.device=cpu", "stage=full", "stage.epochs=1")
    for least, expected in ((8, torch.channels_last), (9, torch.contiguous_format)):
        monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], channels_last_from=least))
        prepared = prepared_with_8_images(config, network, tmp_path, monkeypatch)
        assert prepared.runtime.memory_format == expected
        assert prepared.runtime.engine()["memory_format"] == str(expected).removeprefix("torch.")
        assert network.module.get_parameter("stem.0.weight").is_contiguous(memory_format=expected)


@pytest.mark.parametrize(("began_on", "expected"), [("cpu", torch.channels_last), ("cuda", torch.contiguous_format)])
def test_a_resumed_run_keeps_its_memory_format_on_its_own_kind_of_device_alone(
    configure: Compose,
    network: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    began_on: str,
    expected: torch.memory_format,
) -> None:
    """On another one it could be slow, or wrong: Apple GPUs compute other values with channels last."""
    engine = {"device": began_on, "memory_format": "channels_last"}
    begun = RunIdentity({}, DataIdentity([], "", "", []), {}, batch_size=8, engine=engine, decided=[])
    monkeypatch.setattr("ftexp.preparation.prepare._begun", lambda *_: begun)
    monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], channels_last_from=9))
    config = configure("runtime.device=cpu", "stage=full", "stage.epochs=1", "train.batch_size=8")
    prepared = prepared_with_8_images(config, network, tmp_path, monkeypatch)
    assert prepared.runtime.memory_format == expected
