"""GPU slots of trials, on simulated GPUs; the locks are real."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from ftexp.config import RuntimeConfig
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


def test_each_trial_has_a_gpu_until_all_are_taken_then_they_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[tuple[float, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: shares.append(given))
    with ExitStack() as trials:
        devices = [
            trials.enter_context(gpu_slot(on("auto"), tmp_path, trials_per_gpu=2, num_jobs=1)).device for _ in range(4)
        ]
        assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
        assert shares == [(0.5, torch.device(device)) for device in devices], "of the memory of their GPU"
        assert take_free_slot(tmp_path, 4, ExitStack()) is None, "the fifth has to wait"
    shares.clear()
    with gpu_slot(on("cuda"), tmp_path, trials_per_gpu=1, num_jobs=1) as free_again:
        assert free_again.device == "cuda:0"
    assert not shares, "all of it"


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "mps"])
def test_a_device_that_was_named_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = on(device)
    with gpu_slot(config, tmp_path, trials_per_gpu=1, num_jobs=1) as unchanged:
        assert unchanged is config


def test_trials_at_once_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [threads_per_trial(jobs) for jobs in (1, 3, 8, 100)] == [8, 2, 1, 1]
    before = torch.get_num_threads()
    try:
        with gpu_slot(on("cpu"), tmp_path, trials_per_gpu=1, num_jobs=8):
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
