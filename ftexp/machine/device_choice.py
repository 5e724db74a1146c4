"""The device of a process: the one that ``runtime.device`` names, or the best that is there; and why others are not."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from ftexp.errors import DeviceError
from ftexp.machine.accelerator import current, is_accelerator
from ftexp.machine.distributed import Ranks

log = logging.getLogger(__name__)

# It is there where a driver for GPUs of NVIDIA is loaded, also in a container that has not been given the GPUs.
DRIVER = Path("/proc/driver/nvidia/version")


def choose_device(name: str, ranks: Ranks) -> torch.device:
    """The device that a setting names; of ``auto``, the first of CUDA, Apple's GPU and the CPU that is there.

    Several processes do not use Apple's GPU, for whose tensors torch has no collectives.

    A CUDA device has its number, also where the setting has none. Under torchrun, each process of a host has a GPU of
    its own. A part of a GPU that was divided (MIG) is a device like any other: torch counts those that
    CUDA_VISIBLE_DEVICES names, and says how much memory each has.

    Args:
        name: ``runtime.device``.
        ranks: the processes of the run.

    Raises:
        DeviceError: when the device is not there; for CUDA, the message says why.
    """
    if ranks.size > 1 and ":" in name:
        raise DeviceError(
            f"runtime.device={name} is not possible with torchrun, which gives each process its own device. Use auto."
        )
    if ranks.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return _own_gpu(ranks)
    if ranks.size > 1 and name == "mps":
        raise DeviceError(
            "runtime.device=mps is not possible with torchrun, because torch has no collectives for an Apple GPU. Use "
            "runtime.device=cpu, or one process without torchrun."
        )
    if name == "auto" and not torch.cuda.is_available():
        return torch.device("mps" if ranks.size == 1 and torch.backends.mps.is_available() else "cpu")
    name = "cuda" if name == "auto" else name
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"runtime.device={name} is not a device; use auto, cpu, cuda, cuda:N or mps.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"{_gpus()}, numbered from 0" if torch.cuda.is_available() else f"no CUDA device: {why_no_cuda()}"
        raise DeviceError(f"runtime.device={name}: this machine has {found}. Use runtime.device=auto or cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("runtime.device=mps: this machine has no Apple GPU. Use runtime.device=auto or cpu.")
    # With its number: what torch says of a process's share of the memory needs it.
    return current(device) if is_accelerator(device) and device.index is None else device


def report_unused_gpus(name: str, device: torch.device, ranks: Ranks) -> None:
    """Write a log line about GPUs that a run could use and does not.

    Args:
        name: ``runtime.device``, by which the user may have chosen what is used.
        device: the device of the run.
        ranks: the processes of the run.
    """
    if name == "auto" and device.type == "cpu" and DRIVER.exists() and not _hidden():
        log.warning("device  on the CPU, although this machine has a driver for NVIDIA GPUs: %s", why_no_cuda())
    if name in ("auto", "cuda") and device.type == "cuda" and ranks.size == 1 and torch.cuda.device_count() > 1:
        count = torch.cuda.device_count()
        log.info("device  1 of %d GPUs is used; all are by torchrun --nproc-per-node=%d -m ftexp ...", count, count)


def why_no_cuda() -> str:
    """Why torch finds no CUDA device, without a full stop."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA"
    if _hidden():
        return f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} hides the GPUs"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # no driver, one that is too old, a GPU that does not answer
        return " ".join(str(error).split())[:200].split(". ")[0].rstrip(".")
    return "torch counts none"


def _hidden() -> bool:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible is not None and visible.strip() in ("", "-1")


def _own_gpu(ranks: Ranks) -> torch.device:
    if ranks.local_rank >= torch.cuda.device_count():
        raise DeviceError(
            f"torchrun has started {ranks.local_size} processes on a machine with {_gpus()}, and each needs its own. "
            f"Use --nproc-per-node={torch.cuda.device_count()}."
        )
    return torch.device("cuda", ranks.local_rank)


def _gpus() -> str:
    count = torch.cuda.device_count()
    return f"{count} CUDA device{'' if count == 1 else 's'}"
