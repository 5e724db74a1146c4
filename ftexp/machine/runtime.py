"""How the network runs on the machine: device, precision, memory format, compilation, seeds."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from ftexp.config import RuntimeConfig
from ftexp.errors import DeviceError
from ftexp.machine.accelerator import device_name, forget_peak, is_accelerator, moved, peak_bytes, use
from ftexp.machine.device_choice import choose_device
from ftexp.machine.device_kinds import KINDS
from ftexp.machine.distributed import ONE_PROCESS, Ranks
from ftexp.machine.generators import seed_generators
from ftexp.machine.memory_budget import MemoryBudget, budget_of, no_budget

# Parameters of mallopt(3): the size from which memory is mapped, and the free memory at the top that is given back.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_LARGEST_INT = 2**31 - 1
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how the network runs, with every ``auto`` resolved.

    Attributes:
        device: the device of this process.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        compile: whether phases may be compiled; ``Phase.compiled`` says which are.
        memory_format: of the network and the images.
        workers: the number of processes that load data, or ``auto``.
        ranks: the processes that train together.
        memory: the budget of the device's memory.
    """

    device: torch.device
    precision: str
    compile: bool
    memory_format: torch.memory_format
    workers: int | str
    ranks: Ranks = ONE_PROCESS
    memory: MemoryBudget = field(default_factory=no_budget, compare=False)

    def autocast(self) -> AbstractContextManager[None]:
        """Mixed precision for forward passes; does nothing in fp32."""
        return torch.autocast(self.device.type, _DTYPES[self.precision], enabled=self.precision != "fp32")

    def place(self, module: nn.Module) -> None:
        """Move a network to the device and its memory format, in place."""
        module.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]

    def place_images(self, images: torch.Tensor) -> torch.Tensor:
        """Move images [B, 3, H, W] to the device and its memory format; a copy of pinned memory does not wait.

        They are copied as they are and changed there: CUDA changes what it copies in memory that is not pinned.
        """
        return moved(images, self.device).contiguous(memory_format=self.memory_format)

    def facts(self) -> dict[str, str]:
        """Device, precision and number of processes, as tags for the tracking store."""
        return {"device": str(self.device), "precision": self.precision, "processes": str(self.ranks.size)}

    def engine(self) -> dict[str, object]:
        """All that the last bits of a score follow from, beside weights, images and versions; for ``run.json``."""
        return {
            "device": self.device.type,
            "device_kind": device_name(self.device),
            "precision": self.precision,
            "memory_format": str(self.memory_format).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "cudnn_benchmark": self.device.type == "cuda" and torch.backends.cudnn.benchmark,
            "processes": self.ranks.size,
        }

    def peak_memory_mib(self) -> float:
        """The peak memory so far in MiB: of the accelerator, or else of the process."""
        if is_accelerator(self.device):
            return peak_bytes(self.device) / 2**20
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def prepare_runtime(config: RuntimeConfig, ranks: Ranks = ONE_PROCESS) -> Runtime:
    """Resolve every ``auto``, seed all generators with the same seed on all ranks, and configure torch.

    Raises:
        DeviceError: when this machine does not have the requested device or precision.
    """
    device = choose_device(config.device, ranks)
    on_cuda, kind = device.type == "cuda", KINDS[device.type]
    seed_generators(config.seed)
    if config.deterministic != torch.are_deterministic_algorithms_enabled():  # the call imports the compiler
        torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = False  # until it is known that a run has many steps: training/kernel_search.py
    if device.type == "cpu":
        keep_freed_memory()
    if is_accelerator(device):
        use(device)  # before anything is asked of "the" GPU
        forget_peak(device)
    precision = _choose_precision(config.precision, device, ranks)
    if on_cuda:
        if config.deterministic:  # cuBLAS reads it at its first call, and without it torch refuses matrix products
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_float32_matmul_precision("high")  # TF32, for runs in fp32 and for what autocast leaves in fp32
    channels_last = kind.channels_last_from is not None if config.channels_last == "auto" else config.channels_last
    return Runtime(
        device=device,
        precision=precision,
        compile=kind.may_compile if config.compile == "auto" else bool(config.compile),
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        workers=config.workers,
        ranks=ranks,
        memory=budget_of(device, ranks.local_size),
    )


def settle_memory_format(runtime: Runtime, config: RuntimeConfig, num_train: int, begun: str | None = None) -> Runtime:
    """Resolve ``runtime.channels_last=auto`` by the number of training images, which is known once the data is read.

    Where nothing is compiled, a device may need longer to prepare the kernels of channels last than they save in a
    small run.

    Args:
        runtime: as ``prepare_runtime`` returned it.
        config: ``runtime``.
        num_train: the number of training images.
        begun: the memory format of the run that is resumed or evaluated, as ``engine`` has it; None: the run is new, or
            began on another type of device.
    """
    if config.channels_last == "auto" and begun is not None:
        return replace(runtime, memory_format=getattr(torch, begun))
    least = KINDS[runtime.device.type].channels_last_from
    if config.channels_last != "auto" or config.compile is True or least is None or num_train >= least:
        return runtime
    return replace(runtime, memory_format=torch.contiguous_format)


def inference_runtime(device: str) -> Runtime:
    """For forward passes in fp32; no generator is seeded, and no switch of torch's is set.

    Args:
        device: as ``runtime.device``.

    Raises:
        DeviceError: when the device is not there.
    """
    chosen = choose_device(device, ONE_PROCESS)
    if chosen.type == "cpu":
        keep_freed_memory()
    return Runtime(chosen, "fp32", compile=False, memory_format=format_of_few(chosen), workers=0)


def format_of_few(device: torch.device) -> torch.memory_format:
    """The memory format in which a few images have the least to wait for."""
    return torch.channels_last if KINDS[device.type].channels_last_from == 0 else torch.contiguous_format


def keep_freed_memory() -> bool:
    """Make glibc keep the memory of freed tensors for new ones; by default it returns large blocks to the system.

    New blocks from the system are cleared page by page, again for every batch of activations. Measured on two cores
    with EfficientNet-Lite0 and 32 images at 224 px: a forward pass takes 20 ms per image without this setting, and 8 ms
    with it.

    Returns:
        Whether the setting was made; False without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)
    return all(mallopt(ctypes.c_int(setting), ctypes.c_int(_LARGEST_INT)) == 1 for setting in settings)


def seed_phase(seed: int, phase_number: int, ranks: Ranks) -> None:
    """Seed all generators for a phase, so that its random draws depend only on the seed, the phase and the rank."""
    seed_generators(seed, 1 + phase_number, ranks.rank)


def _choose_precision(name: str, device: torch.device, ranks: Ranks) -> str:
    kind = KINDS[device.type]
    if name == "auto":
        slow = not kind.fast_bf16()
        if is_accelerator(device):  # processes may have GPUs of different kinds, and all compute alike
            slow = bool(ranks.all_reduce_max(slow))
        return "fp32" if slow else "bf16"
    if name == "fp16" and not kind.fp16:
        raise DeviceError(f"runtime.precision=fp16 needs a CUDA device, and this run is on {device}. Use fp32 or bf16.")
    if name == "bf16" and not kind.has_bf16():
        raise DeviceError("runtime.precision=bf16 on an Apple GPU needs macOS 14 or newer. Use fp32.")
    return name
