"""GPU slots: on which GPU each trial of a machine runs, and with how many threads."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ftexp.config import RuntimeConfig
from ftexp.machine.accelerator import limit_memory
from ftexp.machine.cores import available_cores

SECONDS_BETWEEN_TRIES = 0.5


@contextmanager
def gpu_slot(config: RuntimeConfig, folder: Path, *, trials_per_gpu: int, num_jobs: int) -> Iterator[RuntimeConfig]:
    """Hold a GPU slot for one trial while the ``with`` lasts; wait while all slots are taken.

    Args:
        config: the trial's ``runtime``.
        folder: the folder for the lock files; the same for all trials of the sweep on this machine.
        trials_per_gpu: number of slots of each GPU.
        num_jobs: trials that run at once, each in its own process; with 1 this process may use all cores.

    Returns:
        The settings with the slot's GPU as the device; unchanged on a CPU or where ``runtime.device`` names a GPU.
    """
    if num_jobs > 1:
        torch.set_num_threads(threads_per_trial(num_jobs))
    num_gpus = torch.cuda.device_count() if config.device in ("auto", "cuda") else 0
    if num_gpus == 0:
        yield config
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        number = None
        while number is None:
            number = take_free_slot(folder, num_gpus * trials_per_gpu, held)
            if number is None:
                time.sleep(SECONDS_BETWEEN_TRIES)
        device = torch.device("cuda", number % num_gpus)
        if trials_per_gpu > 1:  # else each would take what is free as if it were alone
            limit_memory(device, 1 / trials_per_gpu)
        yield replace(config, device=str(device))


def threads_per_trial(num_jobs: int) -> int:
    """The cores that this process may use, divided by the number of trials at once."""
    return max(1, available_cores() // num_jobs)


def take_free_slot(folder: Path, num_slots: int, held: ExitStack) -> int | None:
    """Lock the first free slot of this machine until ``held`` is closed or the process ends.

    Args:
        folder: the folder for the lock files.
        num_slots: number of slots of all GPUs together.
        held: releases the lock when it is closed.

    Returns:
        The slot's number, from 0; consecutive slots are on different GPUs. None when all are taken.
    """
    for number in range(num_slots):
        try:
            held.enter_context(FileLock(folder / f"slot-{socket.gethostname()}-{number}.lock", timeout=0))
        except Timeout:
            continue
        return number
    return None
