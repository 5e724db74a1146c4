"""Where the trials of a machine run: one GPU each, or several on one, and no more threads than there are cores."""

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
from ftexp.machine.cores import available_cores

SECONDS_BETWEEN_TRIES = 0.5


@contextmanager
def placed(config: RuntimeConfig, folder: Path, *, trials_per_gpu: int, num_jobs: int) -> Iterator[RuntimeConfig]:
    """Find a trial its place for as long as the ``with`` lasts; waits where all are taken.

    Args:
        folder: of the sweep's locks, the same for all of its trials on this machine.
        num_jobs: trials that run at once, each in a process of its own; 1: this process may have all cores.

    Returns:
        The settings with the GPU's name, where ``runtime.device`` leaves the choice of one.
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
            number = take_free(folder, num_gpus * trials_per_gpu, held)
            if number is None:
                time.sleep(SECONDS_BETWEEN_TRIES)
        yield replace(config, device=f"cuda:{number % num_gpus}")


def threads_per_trial(num_jobs: int) -> int:
    """A share of the cores that this process may use."""
    return max(1, available_cores() // num_jobs)


def take_free(folder: Path, num_places: int, held: ExitStack) -> int | None:
    """Take the first place of this machine that no other process has, until ``held`` or the process ends.

    Returns:
        Its number; consecutive ones are on different GPUs. None when all are taken.
    """
    for number in range(num_places):
        try:
            held.enter_context(FileLock(folder / f"place-{socket.gethostname()}-{number}.lock", timeout=0))
        except Timeout:
            continue
        return number
    return None
