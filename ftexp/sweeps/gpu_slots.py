"""GPU slots: on which GPU each trial of a machine runs, and with how many threads."""

from __future__ import annotations

import gc
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ftexp.config import RuntimeConfig
from ftexp.machine.accelerator import empty_cache, limit_memory
from ftexp.machine.cores import available_cores

SECONDS_BETWEEN_TRIES = 0.5
# The classes of Hydra's launchers whose trials share the cores of a machine; SLURM and Ray assign cores to each trial.
ON_SHARED_CORES = ("JoblibLauncher", "LocalLauncher")

log = logging.getLogger(__name__)


@contextmanager
def gpu_slot(config: RuntimeConfig, folder: Path, *, trials_per_gpu: int, num_jobs: int) -> Iterator[RuntimeConfig]:
    """Hold a GPU slot for one trial while the ``with`` lasts; wait while all slots are taken.

    Args:
        config: the trial's ``runtime``.
        folder: the folder for the lock files; the same for all trials of the sweep on this machine.
        trials_per_gpu: number of slots of each GPU.
        num_jobs: trials that share the cores of this process, each in its own process; with 1 it may use all of them.

    The memory of the GPU that nothing in this process uses any more is returned before another trial gets the slot.

    Returns:
        The settings with the slot's GPU as the device; unchanged on a CPU or where ``runtime.device`` names a GPU.
    """
    if num_jobs > 1:
        torch.set_num_threads(threads_per_trial(num_jobs))
    gpus = _visible_gpus() if config.device in ("auto", "cuda") else []
    if not gpus:
        yield config
        return
    empty_cache(torch.device("cuda"))  # a trial that failed here has kept what its error referred to
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        number = take_free_slot(folder, gpus, trials_per_gpu, held)
        if number is None:
            log.info("gpu     all slots of the GPUs that this trial sees (%d) are taken; it waits for one", len(gpus))
        while number is None:
            time.sleep(SECONDS_BETWEEN_TRIES)
            number = take_free_slot(folder, gpus, trials_per_gpu, held)
        device = torch.device("cuda", number)
        if trials_per_gpu > 1:  # else each would take what is free as if it were alone
            limit_memory(device, 1 / trials_per_gpu)
        try:
            yield replace(config, device=str(device))
        finally:  # before others get the slot: this process may live on, and have its next trial on another GPU
            gc.collect()
            empty_cache(device)


def jobs_on_shared_cores(launcher: str, num_jobs: int) -> int:
    """The number of trials that share the cores of a process.

    Args:
        launcher: ``hydra.launcher._target_``.
        num_jobs: number of trials at once.
    """
    return num_jobs if launcher.rpartition(".")[2] in ON_SHARED_CORES else 1


def threads_per_trial(num_jobs: int) -> int:
    """The cores that this process may use, divided by the number of trials at once."""
    return max(1, available_cores() // num_jobs)


def take_free_slot(folder: Path, gpus: Sequence[str], trials_per_gpu: int, held: ExitStack) -> int | None:
    """Lock the first free slot until ``held`` is closed or the process ends; a second slot of a GPU comes last.

    Args:
        folder: the folder for the lock files.
        gpus: the name of each GPU that this process can see.
        trials_per_gpu: number of slots of each GPU.
        held: releases the lock when it is closed.

    Returns:
        The index of the slot's GPU in ``gpus``; None when all slots are taken.
    """
    for slot in range(trials_per_gpu):
        for number, gpu in enumerate(gpus):
            try:
                held.enter_context(FileLock(folder / f"gpu-{gpu}-{slot}.lock", timeout=0))
            except Timeout:
                continue
            return number
    return None


def _visible_gpus() -> list[str]:
    """A name of each GPU that this process sees: the UUID, which CUDA_VISIBLE_DEVICES does not change, or a number."""
    properties = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    numbered = (f"{socket.gethostname()}-{number}" for number in range(len(properties)))
    return [str(getattr(one, "uuid", name)) for one, name in zip(properties, numbered, strict=True)]
