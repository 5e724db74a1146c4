"""What ftexp does differently on the types of devices that it trains on, in one table.

The numbers behind ``pytorch#`` name issues of github.com/pytorch/pytorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class CompileCost:
    """What it costs to compile a network of EfficientNet's size, and what this saves.

    A phase that trains a share of the blocks costs and saves that share, and ``fixed_seconds`` in addition.

    Attributes:
        fixed_seconds: what both graphs of a phase (training and scoring) take before their first block.
        seconds: what all blocks take in both graphs.
        saved_seconds: what it saves for each image in a training step of all blocks.
    """

    fixed_seconds: float
    seconds: float
    saved_seconds: float

    def least_steps(self, share: float, num_images: int) -> int:
        """The number of steps from which compiling saves time.

        Args:
            share: the share of the blocks that is trained, above 0.
            num_images: the images of a step.
        """
        return math.ceil((self.fixed_seconds + self.seconds * share) / (self.saved_seconds * share * num_images))


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """What differs between types of devices; settings with the value ``auto`` follow it.

    Attributes:
        is_accelerator: whether the device has memory of its own, to which pinned memory is copied without waiting, and
            a module of torch's that tells of it. Apple's GPU has the memory of the host.
        has_generator: whether random numbers on the device come from a generator of its own.
        float64: whether the device has float64.
        channels_last_from: the number of training images from which ``runtime.channels_last=auto`` is true, if nothing
            is compiled at the user's wish; None: never.
        fast_bf16: whether the device computes faster in bf16, so that ``runtime.precision=auto`` chooses it.
        has_bf16: whether the device can compute in bf16.
        fp16: whether ``runtime.precision=fp16`` is possible.
        prepares_sizes: whether the first batch of another size takes seconds, so that smaller last batches are padded.
        search_steps: the number of steps of a run from which cuDNN tries its kernels for every size of batch and takes
            the fastest (``torch.backends.cudnn.benchmark``); None: the device does not use cuDNN.
        compiling: what compiling costs and saves; or why ``runtime.compile=auto`` never compiles.
    """

    is_accelerator: bool
    has_generator: bool
    float64: bool
    channels_last_from: int | None
    fast_bf16: Callable[[], bool]
    has_bf16: Callable[[], bool]
    fp16: bool
    prepares_sizes: bool
    search_steps: int | None
    compiling: CompileCost | str

    @property
    def may_compile(self) -> bool:
        """Whether ``runtime.compile=auto`` may compile."""
        return isinstance(self.compiling, CompileCost)


def _no() -> bool:
    return False


def _yes() -> bool:
    return True


def _macos_has_bf16() -> bool:
    return bool(torch.backends.mps.is_macos_or_newer(14, 0))


def _cuda_has_bf16_units() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


KINDS = {
    "cpu": DeviceKind(
        is_accelerator=False,
        has_generator=False,
        float64=True,
        # Measured on two cores: EfficientNet-Lite0 trains 1.6 times faster with channels last.
        channels_last_from=0,
        # Without bf16 units, bf16 is 3 to 13 times slower.
        fast_bf16=_no,
        has_bf16=_yes,
        fp16=False,
        prepares_sizes=False,
        search_steps=None,
        # Measured (benchmarks/results.md, "What compiling costs and saves"): it pays back after 8,000 steps, or never.
        compiling="a CPU runs compiled steps hardly faster",
    ),
    "cuda": DeviceKind(
        is_accelerator=True,
        has_generator=True,
        float64=True,
        # Measured on an H200 in bf16 (benchmarks/results.md, "First steps on a device"): EfficientNet-Lite0 waits 14 to
        # 18 s for its first step with channels last, because cuDNN compiles the kernels of depthwise convolutions, and
        # 9 to 11 s for one of another size; in contiguous memory 1.5 and 0.3 s. Steps of 32 images take the same time,
        # those of 256 images 0.2 ms an image less with channels last: 25 s in 25 epochs of 5,000 images.
        channels_last_from=5_000,
        fast_bf16=_cuda_has_bf16_units,
        has_bf16=_yes,
        fp16=True,
        # cuDNN compiles the kernels of depthwise convolutions at run time, for each size again (cudnn-frontend#1066).
        # Measured on an H100 with EfficientNet-Lite0 in bf16: 18 s for the first step, 12 s for one of another size.
        prepares_sizes=True,
        # Measured on an H200 with EfficientNet-Lite0 in bf16, four processes at once, n = 1: the first step takes 38 s
        # with the search, and 17 s without. The search has to save 4 ms of a step of 47 ms to make up for it.
        search_steps=5_000,
        # Measured on an H200 in bf16 (benchmarks/results.md, "First steps on a device"): the training graph of
        # EfficientNet-Lite0 takes 35 s, and saves 0.14 ms an image in steps of 32; for ResNet-50 it saves 0.14 ms in
        # steps of 256. How the time divides into graphs and blocks is an estimate.
        compiling=CompileCost(fixed_seconds=10, seconds=40, saved_seconds=0.00014),
    ),
    "mps": DeviceKind(
        # So nothing is pinned, and copies wait: one that does not may read memory that is freed (pytorch#189690).
        is_accelerator=False,
        has_generator=True,
        float64=False,  # pytorch#122602
        # The backward pass of convolutions is up to 30 times slower with channels last (pytorch#193349), and some
        # layers compute wrong values from views of such tensors (pytorch#174345).
        channels_last_from=None,
        # Chips before the M3 emulate bf16 in fp32.
        fast_bf16=_no,
        has_bf16=_macos_has_bf16,
        fp16=False,
        prepares_sizes=False,
        search_steps=None,
        # A prototype (pytorch#150121) that trained convolutional networks four times slower (pytorch#192551).
        compiling="torch compiles for Apple GPUs as a prototype, which can be slower",
    ),
}
