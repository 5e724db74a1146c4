"""The processes that train together and their collectives.

torchrun starts as many processes as it is told to, and each trains on its part of every batch. Without torchrun there
is one process, and no collective does anything.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ftexp.errors import RankError
from ftexp.machine.cores import available_cores
from ftexp.machine.torchrun import several_processes, store

T = TypeVar("T")
Forward = Callable[[Tensor], Tensor]

# The other processes wait while the first one audits the data or fills a cache. torchrun notices a process that dies.
LONGEST_WAIT = timedelta(days=1)
# What the errors of gloo and NCCL say when another process has died.
LOST = ("Connection closed by peer", "Connection reset", "Broken pipe", "remote process exited", "Application timeout")


@dataclass(frozen=True, slots=True)
class Ranks:
    """The rank of this process among all processes of the run, and their collectives.

    All methods but ``local_batch_size`` are collectives: all processes have to call them in the same order.

    Attributes:
        rank: the number of this process, from 0; process 0 is the main one.
        size: the number of processes.
        local_rank: the number of this process among those on its host, from 0.
        local_size: the number of processes on this host.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files, logs, and sends to the tracking store."""
        return self.rank == 0

    def local_batch_size(self, num_images: int) -> int:
        """How many of the ``num_images`` images of a batch belong to this rank."""
        return len(range(self.rank, num_images, self.size))

    def broadcast(self, make: Callable[[], T]) -> T:
        """Call ``make`` in the main process and return its result in all processes.

        When ``make`` raises, the main process ends with the error, and torchrun ends the other processes.
        """
        if self.size == 1:
            return make()
        box: list[Any] = [make() if self.is_main else None]
        distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        value: T = box[0]
        return value

    def first_on_host(self, make: Callable[[], T]) -> T:
        """Call ``make`` in every process, and in the first process of each host before the others on that host."""
        if self.local_rank > 0:
            self.all_reduce_max(0)
        value = make()
        if self.local_rank == 0:
            self.all_reduce_max(0)
        return value

    def all_gather(self, value: T) -> list[T]:
        """The values of all processes in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def all_reduce_max(self, number: int) -> int:
        """The largest of the numbers that the processes give."""
        if self.size == 1:
            return number
        tensor = torch.tensor(number)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return int(tensor.item())

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors that the processes give, element by element, as a new tensor."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    def gather_rows(self, rows: Tensor) -> Tensor:
        """The rows of all processes in the order of the samples; row ``i`` comes from rank ``i % size``.

        Args:
            rows: those of this process, ``[N, ...]``; ``N`` may be one less on later ranks.
        """
        if self.size == 1:
            return rows
        most = self.all_reduce_max(len(rows))
        padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded)
        total = int(self.all_reduce_sum(torch.tensor(len(rows))).item())
        return torch.stack(parts, dim=1).flatten(0, 1)[:total]

    def replicate(self, forward: Forward, module: nn.Module) -> Forward:
        """Wrap a forward pass so that its backward pass averages the gradients over all processes.

        Args:
            forward: computes with trainable parameters of ``module``.
        """
        if self.size == 1:
            return forward
        with warnings.catch_warnings():  # new versions of torch warn of this name, which old versions need
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                _Replica(forward, module), broadcast_buffers=False, gradient_as_bucket_view=True
            )


class _Replica(nn.Module):
    def __init__(self, forward: Forward, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._forward = (forward,)  # in a tuple, because a module would be registered a second time

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > 0:
            return self._forward[0](inputs)
        # The last batch may have fewer images than there are ranks. A rank without an image must still take part in the
        # backward pass, with gradients of zero; as many networks cannot run on an empty batch, it runs on one of zeros.
        return self._forward[0](inputs.new_zeros(1, *inputs.shape[1:]))[:0]


ONE_PROCESS = Ranks()


@contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """Join the process group of the processes that torchrun has started, and leave it afterwards.

    Without torchrun it yields ``ONE_PROCESS`` and starts nothing.

    Args:
        device: ``runtime.device``. With CUDA, collectives of CUDA tensors go through NCCL; all others through gloo.

    Raises:
        RankError: inside the ``with``, when another process has died.
    """
    if not several_processes():
        yield ONE_PROCESS
        return
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    ranks = Ranks(*(int(os.environ.get(name, "1")) for name in names))
    on_cuda = device.split(":")[0] in ("auto", "cuda") and torch.cuda.is_available()
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
        store=store(),
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=LONGEST_WAIT,
    )
    _share_cores(ranks)
    try:
        yield ranks
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or any(sign in str(error) for sign in LOST):
            raise RankError(
                f"One of the {ranks.size} processes has died, so the run ends; out of memory is the usual reason, and "
                "torchrun's report names the process. The last checkpoint is complete: resume with resume=FOLDER OF "
                "THE RUN and any number of processes."
            ) from error
        raise
    distributed.destroy_process_group()


def _share_cores(ranks: Ranks) -> None:
    """Let this process use its share of the cores of its host, unless OMP_NUM_THREADS says how many.

    torchrun sets that variable to 1 where nobody has set it, so 1 says nothing of what a user wants. With one thread,
    all processes would wait for the first one while it solves a head.
    """
    if os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(max(1, available_cores() // ranks.local_size))
