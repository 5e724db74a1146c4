"""Which device a process gets, and what is said about GPUs that are not used."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Compose

from ftexp.errors import DeviceError
from ftexp.machine import device_choice
from ftexp.machine.device_choice import choose_device, report_unused_gpus, why_no_cuda
from ftexp.machine.distributed import ONE_PROCESS, Ranks
from ftexp.machine.runtime import prepare_runtime
from ftexp.models.blocks import Network
from ftexp.preparation.prepare import prepare

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
Gpus = Callable[..., None]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """``gpus(2)``: a machine with two; ``gpus(0, "what torch says")``: CUDA cannot be used there."""

    def install(count: int, error: str | None = None) -> None:
        def init() -> None:
            if error is not None:
                raise RuntimeError(error)

        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "init", init)
        monkeypatch.setattr(torch.version, "cuda", "13.2")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return install


def test_auto_is_the_first_that_is_there(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto", ONE_PROCESS) == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto", ONE_PROCESS) == torch.device("mps")
    gpus(1)
    assert choose_device("auto", ONE_PROCESS) == torch.device("cuda", 0)


def test_several_processes_do_not_use_an_apple_gpu(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """gloo has no collectives for its tensors."""
    gpus(0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto", Ranks(0, 2, 0, 2)) == CPU
    with pytest.raises(
        DeviceError, match=r"mps is not possible with torchrun.* Use runtime\.device=cpu, or one process"
    ):
        choose_device("mps", Ranks(0, 2, 0, 2))
    assert choose_device("mps", ONE_PROCESS) == torch.device("mps")


@pytest.mark.parametrize("name", ["cuda:0", "cuda:1"])
def test_processes_are_given_their_devices(name: str, gpus: Gpus) -> None:
    gpus(2)
    assert choose_device(name, ONE_PROCESS) == torch.device(name)
    with pytest.raises(DeviceError, match=rf"device={name} is not possible with torchrun, .* its own device. Use auto"):
        choose_device(name, Ranks(0, 2))


@pytest.mark.parametrize(("current", "number"), [(None, 0), (1, 1)])
def test_a_gpu_without_a_number_is_the_one_that_torch_uses(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, current: int | None, number: int
) -> None:
    gpus(2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: current is not None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    for name in ("auto", "cuda"):
        assert choose_device(name, ONE_PROCESS) == torch.device("cuda", number)
    assert choose_device("cuda:0", ONE_PROCESS) == torch.device("cuda", 0)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_of_a_host_has_its_own_gpu(gpus: Gpus, name: str) -> None:
    gpus(2)
    ranks = [Ranks(rank, 4, rank % 2, 2) for rank in range(4)]  # two hosts
    assert [choose_device(name, each).index for each in ranks] == [0, 1, 0, 1]
    with pytest.raises(DeviceError, match=r"started 3 processes on a machine with 2 CUDA devices.*per-node=2\."):
        choose_device(name, Ranks(2, 3, 2, 3))


@pytest.mark.parametrize(
    ("count", "error", "visible", "expected"),
    [
        (2, None, None, r"runtime\.device=cuda:2: this machine has 2 CUDA devices, numbered from 0\. Use"),
        (
            0,
            TOO_OLD,
            None,
            r"no CUDA device: The NVIDIA driver on your system is too old \(found version 11040\)\. Use",
        ),
        (
            0,
            "Found no NVIDIA driver on your system. Please check.",
            None,
            r"Found no NVIDIA driver on your system\. Use",
        ),
        (0, None, "", r"CUDA_VISIBLE_DEVICES= hides the GPUs\. Use"),
        (0, None, "-1", r"CUDA_VISIBLE_DEVICES=-1 hides the GPUs"),
        (0, None, "MIG-1234", r"no CUDA device: torch counts none"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_with_the_reason(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, count: int, error: str | None, visible: str | None, expected: str
) -> None:
    gpus(count, error)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(DeviceError, match=expected):
        choose_device("cuda:2", ONE_PROCESS)


def test_a_torch_for_the_cpu_alone_is_named(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(0)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert why_no_cuda() == f"torch {torch.__version__} is built without CUDA"


def test_a_run_on_the_cpu_of_a_machine_with_a_gpu_says_why(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gpus(0, TOO_OLD)
    monkeypatch.setattr(device_choice, "DRIVER", tmp_path / "version")
    with caplog.at_level(logging.INFO, "ftexp"):
        report_unused_gpus("auto", CPU, ONE_PROCESS)
        assert not caplog.messages, "there is no GPU"
        (tmp_path / "version").touch()
        report_unused_gpus("cpu", CPU, ONE_PROCESS)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        report_unused_gpus("auto", CPU, ONE_PROCESS)
        assert not caplog.messages, "the user chose the CPU"
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        report_unused_gpus("auto", CPU, ONE_PROCESS)
    (message,) = caplog.messages
    assert message.startswith("device  on the CPU, although this machine has a driver")
    assert message.endswith("too old (found version 11040)")


def test_a_run_that_uses_one_of_several_gpus_says_how_to_use_all(gpus: Gpus, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ftexp"):
        gpus(1)
        report_unused_gpus("auto", CUDA, ONE_PROCESS)
        gpus(4)
        report_unused_gpus("cuda:0", torch.device("cuda:0"), ONE_PROCESS)  # chosen, by a user or for a trial
        report_unused_gpus("auto", torch.device("cuda:0"), Ranks(0, 4, 0, 4))
        assert not caplog.messages
        report_unused_gpus("auto", CUDA, ONE_PROCESS)
    assert caplog.messages == ["device  1 of 4 GPUs is used; all are by torchrun --nproc-per-node=4 -m ftexp ..."]


def test_every_run_is_told_of_gpus_that_it_does_not_use(
    configure: Compose, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ToldError(Exception):
        pass

    def report(*given: object) -> None:
        raise ToldError(*given)

    for name, instead in {
        "read_recorded": lambda *_, **__: SimpleNamespace(classes=("a", "b"), train=[], val=[]),
        "locate_weights": lambda *_: None,
        "build_network": lambda *_: network,
        "_identify": lambda *_: None,
        "report_unused_gpus": report,
    }.items():
        monkeypatch.setattr(f"ftexp.preparation.prepare.{name}", instead)
    with pytest.raises(ToldError) as told:
        prepare(configure("runtime.device=cpu"), tmp_path, ONE_PROCESS, score_test=False)
    assert told.value.args == ("cpu", CPU, ONE_PROCESS)


@pytest.mark.parametrize(("deterministic", "other_is_slow"), [(True, False), (False, True)])
def test_a_process_allocates_on_its_own_gpu_from_the_start(
    configure: Compose, gpus: Gpus, monkeypatch: pytest.MonkeyPatch, deterministic: bool, other_is_slow: bool
) -> None:
    """Until a device is set, every process would allocate on the first GPU, also what NCCL and cuBLAS need."""
    gpus(4)
    own = torch.device("cuda:3")
    calls: list[tuple[str, object]] = []
    for name, answer in (("set_device", None), ("reset_peak_memory_stats", None), ("memory_allocated", 0)):
        monkeypatch.setattr(torch.cuda, name, lambda device, n=name, a=answer: calls.append((n, device)) or a)
    for name in ("set_float32_matmul_precision", "use_deterministic_algorithms"):
        monkeypatch.setattr(torch, name, lambda _: None)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: calls.append(("is_bf16_supported", own)) or True)
    told: list[int] = []
    monkeypatch.setattr(Ranks, "all_reduce_max", lambda _, slow: told.append(slow) or other_is_slow)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    config = configure(f"runtime.deterministic={str(deterministic).lower()}").runtime
    runtime = prepare_runtime(config, Ranks(3, 4, 3, 4))
    assert calls[0] == ("set_device", own)
    assert {device for _, device in calls} == {own}
    assert ("is_bf16_supported", own) in calls, "of that GPU, not of the first"
    assert runtime.device == own
    assert runtime.precision == ("fp32" if other_is_slow else "bf16"), "the same in all processes"
    assert told == [False]
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if deterministic else None)
    assert torch.backends.cudnn.benchmark is False, "as long as the number of steps is not known"
