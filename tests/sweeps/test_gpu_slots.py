"""GPU slots of trials, on simulated GPUs; the locks are real."""

from __future__ import annotations

import logging
import os
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from ftexp.__main__ import _fine_tune
from ftexp.config import RuntimeConfig
from ftexp.sweeps import gpu_slots
from ftexp.sweeps.gpu_slots import gpu_slot, take_free_slot, threads_per_trial

SETTINGS = {
    "precision": "fp32",
    "channels_last": False,
    "fold_batchnorm": False,
    "cache_gib": 1.0,
    "workers": 0,
    "seed": 0,
    "compile": False,
}


def on(device: str) -> RuntimeConfig:
    return RuntimeConfig(device=device, **SETTINGS)  # type: ignore[arg-type]


def visible(monkeypatch: pytest.MonkeyPatch, *uuids: str) -> None:
    """Let torch see these GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=uuids[number]))


def test_each_trial_has_a_gpu_until_all_are_taken_then_they_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[tuple[float, torch.device]] = []
    visible(monkeypatch, "a", "b")
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: shares.append(given))
    with ExitStack() as trials:
        devices = [
            trials.enter_context(gpu_slot(on("auto"), tmp_path, trials_per_gpu=2, num_jobs=1)).device for _ in range(4)
        ]
        assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
        assert shares == [(0.5, torch.device(device)) for device in devices], "of the memory of their GPU"
        assert take_free_slot(tmp_path, ["a", "b"], 2, ExitStack()) is None, "the fifth has to wait"
    shares.clear()
    with gpu_slot(on("cuda"), tmp_path, trials_per_gpu=1, num_jobs=1) as free_again:
        assert free_again.device == "cuda:0"
    assert not shares, "all of it"


@pytest.mark.parametrize("fails", [False, True])
def test_a_trial_returns_the_memory_of_its_gpu_before_another_gets_the_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The process lives on, and its next trial may get another GPU."""
    visible(monkeypatch, "a")
    network = torch.nn.Module()
    network.__dict__["itself"] = network  # what only the garbage collector frees
    lives = weakref.ref(network)
    returned: list[tuple[str, bool, int | None]] = []

    def empty(device: torch.device) -> None:
        with ExitStack() as held:
            returned.append((str(device), lives() is None, take_free_slot(tmp_path, ["a"], 1, held)))

    monkeypatch.setattr(gpu_slots, "empty_cache", empty)
    with suppress(KeyError), gpu_slot(on("auto"), tmp_path, trials_per_gpu=1, num_jobs=1):
        del network
        assert returned == [("cuda", False, 0)], "what an earlier trial has left, before there is a slot"
        if fails:
            raise KeyError
    assert returned[1:] == [("cuda:0", True, None)], "nothing uses it, and the slot is still taken"


def test_a_slot_is_of_the_gpu_itself_whatever_its_number_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as trials:
        for seen, device in ((("a",), "cuda:0"), (("b",), "cuda:0"), (("a", "b", "c"), "cuda:2")):
            visible(monkeypatch, *seen)
            held = trials.enter_context(gpu_slot(on("auto"), tmp_path, trials_per_gpu=1, num_jobs=1))
            assert held.device == device


def test_gpus_without_a_uuid_are_told_apart_by_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace())
    with ExitStack() as trials:
        slots = (gpu_slot(on("auto"), tmp_path, trials_per_gpu=1, num_jobs=1) for _ in range(2))
        assert [trials.enter_context(slot).device for slot in slots] == ["cuda:0", "cuda:1"]


def test_a_trial_that_waits_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="ftexp")
    visible(monkeypatch, "a")
    others = ExitStack()
    assert take_free_slot(tmp_path, ["a"], 1, others) == 0
    tries = iter([lambda: None, others.close])
    monkeypatch.setattr("time.sleep", lambda _: next(tries)())
    with gpu_slot(on("auto"), tmp_path, trials_per_gpu=1, num_jobs=1) as runtime:
        assert runtime.device == "cuda:0"
    assert caplog.messages == ["gpu     all slots of the GPUs that this trial sees (1) are taken; it waits for one"]


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "mps"])
def test_a_device_that_was_named_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = on(device)
    with gpu_slot(config, tmp_path, trials_per_gpu=1, num_jobs=1) as unchanged:
        assert unchanged is config


@pytest.mark.parametrize(
    ("launcher", "sharing"),
    [
        ("hydra._internal.core_plugins.basic_launcher.BasicLauncher", 1),
        ("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", 8),
        ("hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher", 8),
        ("hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher", 1),
        ("hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher", 1),
    ],
)
def test_trials_share_cores_where_their_launcher_assigns_none(
    launcher: str, sharing: int, monkeypatch: pytest.MonkeyPatch, configure: Compose, tmp_path: Path
) -> None:
    sweeper = {"pruner": "none", "n_jobs": 8, "storage": "sqlite:///x", "study_name": "x"}
    settings = {"mode": RunMode.MULTIRUN, "sweeper": sweeper, "sweep": {"subdir": "0"}, "overrides": {"task": []}}
    settings["launcher"] = {"_target_": launcher}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(settings))
    monkeypatch.setattr("ftexp.sweeps.trial.run_trial", lambda *given: given[3])
    assert _fine_tune(configure(), tmp_path) == sharing


def test_trials_at_once_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [threads_per_trial(jobs) for jobs in (1, 3, 8, 100)] == [8, 2, 1, 1]
    before = torch.get_num_threads()
    try:
        with gpu_slot(on("cpu"), tmp_path, trials_per_gpu=1, num_jobs=8):
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
