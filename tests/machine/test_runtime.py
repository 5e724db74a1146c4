from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Compose, make_phase

import ftexp
from benchmarks.pretended.backend import pretended
from benchmarks.pretended.tensor import NAME
from ftexp.errors import DeviceError
from ftexp.machine.distributed import ONE_PROCESS, Ranks, process_group
from ftexp.machine.runtime import prepare_runtime, seed_phase, settle_memory_format
from ftexp.models.blocks import Network
from ftexp.models.prefix import split
from ftexp.run import run
from ftexp.training.batch_size import settle_batch_size
from ftexp.training.out_of_memory import out_of_memory_explained
from ftexp.training.random_state import random_state, set_random_state

# How many pages a tensor costs when equal ones were made and given back before it. The first few still find the place.
COUNT_PAGES = """
import resource, sys, torch
from ftexp.machine.runtime import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(5):
    torch.ones(64, 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(64, 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_of_the_last(how: str) -> int:
    command = [sys.executable, "-c", COUNT_PAGES, how]
    # Where pages are huge, both numbers are smaller; the ratio is not.
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's memory")
def test_what_one_tensor_gives_back_the_next_one_takes() -> None:
    assert pages_of_the_last("keep") < pages_of_the_last("default") / 10


@pytest.fixture
def closed_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, neither of which may be opened, nor asked for by ftexp."""

    def opened() -> None:
        raise AssertionError("CUDA was opened")

    def asked() -> bool:
        caller = sys._getframe(1).f_globals["__name__"]
        assert not caller.startswith("ftexp"), f"{caller} asked for CUDA"
        return False

    monkeypatch.setattr("torch.cuda._lazy_init", opened)
    monkeypatch.setattr("torch.cuda.is_available", asked)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@pytest.mark.usefixtures("closed_cuda")
def test_a_run_on_the_cpu_leaves_cuda_alone(
    configure: Compose, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("runtime.device=cpu", "train.batch_size=auto")
    runtime = prepare_runtime(config.runtime, Ranks(0, 2))
    runtime = prepare_runtime(config.runtime)
    settle_batch_size(config, network, [make_phase("body", "head")], runtime, 100)
    split(network, "head")
    seed_phase(0, 0, Ranks(1, 2))
    before = random_state(runtime.device)
    drawn = torch.rand(3)
    set_random_state(before, runtime.device)
    assert torch.equal(torch.rand(3), drawn)
    assert before["cuda"] == []
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "",
        "MASTER_PORT": "",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("ftexp.machine.distributed.store", lambda: None)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend, **_: backends.append(backend))
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    backends: list[str] = []
    with process_group("cpu"):
        assert backends == ["gloo"]


def test_generators_are_forked_in_one_place_which_knows_the_device() -> None:
    """torch's own fork_rng opens every GPU of the machine unless it is told not to."""
    sources = Path(ftexp.__file__).parent.rglob("*.py")
    assert [file.name for file in sources if "fork_rng(" in file.read_text(encoding="utf-8")] == ["generators.py"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 2.00 GiB"),
        MemoryError("Unable to allocate 2.00 GiB for an array" + 300 * "."),
    ],
)
def test_memory_that_runs_out_ends_in_a_message_with_the_way_out(configure: Compose, error: Exception) -> None:
    config = configure("runtime.device=cpu", "train.batch_size=64", "train.accumulate=2")
    runtime = prepare_runtime(config.runtime)
    failed = RuntimeError("compiling failed")
    with pytest.raises(DeviceError) as told, out_of_memory_explained(config.train, runtime):
        raise failed from error
    assert str(told.value) == (
        "Out of memory on cpu with train.batch_size=64. Start again with train.batch_size=32 train.accumulate=4, which "
        "makes the same updates, train.batch_size=auto, which measures what fits, fewer trainable blocks or a smaller "
        f"model or data.image_size. ({str(error).partition(chr(10))[0][:200]})"
    )
    assert told.value.__cause__ is failed, "for those who look where it happened"
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_explained(config.train, runtime):
        raise RuntimeError("shapes do not fit")
    config = configure("train.batch_size=1")
    with (
        pytest.raises(DeviceError, match=r"Start again with train\.batch_size=auto"),
        out_of_memory_explained(config.train, runtime),
    ):
        raise error


@pytest.mark.parametrize(("size", "halved"), [(6, False), (8, True)])
def test_half_a_batch_is_advised_only_if_all_processes_can_share_it(
    size: int, halved: bool, configure: Compose
) -> None:
    config = configure("runtime.device=cpu", f"train.batch_size={size}")
    runtime = prepare_runtime(config.runtime, Ranks(0, 2))
    with pytest.raises(DeviceError, match="Out of memory") as told, out_of_memory_explained(config.train, runtime):
        raise MemoryError("no more")
    assert (f"train.batch_size={size // 2} train.accumulate=2" in str(told.value)) == halved


def test_what_was_explained_already_is_not_explained_again(configure: Compose) -> None:
    config = configure("runtime.device=cpu", "train.batch_size=8")
    explained = DeviceError("The solved head needs 3 GiB.")
    with (
        pytest.raises(DeviceError, match=r"^The solved head needs 3 GiB\.$"),
        out_of_memory_explained(config.train, prepare_runtime(config.runtime)),
    ):
        raise explained from MemoryError("no more")


def test_the_processes_of_a_host_share_its_memory(configure: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(available=8 * 2**30)
    monkeypatch.setattr("ftexp.machine.memory_budget.psutil.virtual_memory", lambda: memory)
    config = configure("runtime.device=cpu").runtime
    alone, shared = (prepare_runtime(config, ranks).memory for ranks in (ONE_PROCESS, Ranks(0, 4, local_size=4)))
    assert alone.most_for_step() == 4 * shared.most_for_step() == 4 * 2**30


def test_the_peak_of_memory_is_that_of_the_run(configure: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[torch.device] = []
    monkeypatch.setattr("ftexp.machine.runtime.forget_peak", forgotten.append)
    prepare_runtime(configure("runtime.device=cpu").runtime)
    assert forgotten == []
    with pretended():
        prepare_runtime(configure(f"runtime.device={NAME}").runtime)
    assert forgotten == [torch.device(NAME, 0)]


def test_a_run_that_has_no_more_memory_ends_with_that_message(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("runtime.device=cpu", "train.batch_size=64")
    prepared = SimpleNamespace(settled=SimpleNamespace(config=config), runtime=prepare_runtime(config.runtime))

    def train(*_: object, **__: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("ftexp.run.prepare", lambda *_, **__: prepared)
    monkeypatch.setattr("ftexp.run._recorder", lambda *_: nullcontext())
    monkeypatch.setattr("ftexp.run._fit", train)
    with pytest.raises(DeviceError, match=r"Out of memory on cpu with train\.batch_size=64"):
        run(config, tmp_path)


@pytest.mark.parametrize(
    ("device", "settings", "num_train", "expected"),
    [
        ("cuda", (), 4999, torch.contiguous_format),
        ("cuda", (), 5000, torch.channels_last),
        ("cuda", ("runtime.channels_last=true",), 10, torch.channels_last),
        ("cuda", ("runtime.channels_last=false",), 10**6, torch.contiguous_format),
        ("cuda", ("runtime.compile=true",), 10, torch.channels_last),
        ("cpu", (), 10, torch.channels_last),
        ("cpu", ("runtime.channels_last=false",), 10, torch.contiguous_format),
    ],
)
def test_a_small_run_on_cuda_does_not_wait_for_the_kernels_of_channels_last(
    configure: Compose, device: str, settings: tuple[str, ...], num_train: int, expected: torch.memory_format
) -> None:
    config = configure("runtime.device=cpu", *settings).runtime
    runtime = replace(prepare_runtime(config), device=torch.device(device))
    assert settle_memory_format(runtime, config, num_train).memory_format == expected


def test_a_run_that_is_resumed_keeps_its_memory_format(configure: Compose) -> None:
    for setting, expected in (("auto", torch.contiguous_format), ("true", torch.channels_last)):
        config = configure("runtime.device=cpu", f"runtime.channels_last={setting}").runtime
        settled = settle_memory_format(prepare_runtime(config), config, 10, "contiguous_format")
        assert settled.memory_format == expected, "a value that is given wins"


@pytest.mark.parametrize(
    "module", ["preparation/prepare", "lr_find", "frozen_features", "probed_models", "unlabelled_images"]
)
def test_whoever_knows_the_number_of_images_settles_the_memory_format(module: str) -> None:
    """Else a small run on CUDA would wait there, and its cached activations would not be found."""
    source = (Path(ftexp.__file__).parent / f"{module}.py").read_text(encoding="utf-8")
    assert source.count("= settle_memory_format(") == source.count("= prepare_runtime(") == 1
