"""The processes of one run: as many as torchrun starts, each with its part of every batch; without it, one.

Every method is a meeting: all processes have to call it, in the same order. With one process none of them does
anything.
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
from ftexp.machine.torchrun import several_processes, store

T = TypeVar("T")
Forward = Callable[[Tensor], Tensor]

# The others wait while the first audits the data or fills a cache; one that dies is torchrun's to notice.
LONGEST_WAIT = timedelta(days=1)
# How gloo and NCCL say that a peer is gone.
LOST = ("Connection closed by peer", "Connection reset", "Broken pipe", "remote process exited", "Application timeout")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all of the run.

    Attributes:
        rank: its number, from 0, the main one; ``local_rank``: on its host.
        size: how many there are; ``local_size``: on its host.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes, logs and talks to the tracking store."""
        return self.rank == 0

    def own_share(self, num_images: int) -> int:
        """How many of a batch's images are this rank's."""
        return len(range(self.rank, num_images, self.size))

    def share(self, make: Callable[[], T]) -> T:
        """What the main process makes, in all of them; where making it fails, torchrun ends the others."""
        if self.size == 1:
            return make()
        box: list[Any] = [make() if self.is_main else None]
        distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        value: T = box[0]
        return value

    def first_on_host(self, make: Callable[[], T]) -> T:
        """What every process makes for itself, after the first one on its host is done."""
        if self.local_rank > 0:
            self.largest(0)
        value = make()
        if self.local_rank == 0:
            self.largest(0)
        return value

    def each(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def largest(self, number: int) -> int:
        """Of the processes' numbers."""
        if self.size == 1:
            return number
        tensor = torch.tensor(number)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return int(tensor.item())

    def sum(self, tensor: Tensor) -> Tensor:
        """Of the processes' tensors, element by element."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    def interleave(self, rows: Tensor) -> Tensor:
        """All rows in their order, where row i of the whole is one of those of rank i modulo ``size``."""
        if self.size == 1:
            return rows
        most = self.largest(len(rows))
        padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded)
        total = int(self.sum(torch.tensor(len(rows))).item())
        return torch.stack(parts, dim=1).flatten(0, 1)[:total]

    def replicate(self, forward: Forward, module: nn.Module) -> Forward:
        """A forward pass whose backward pass averages the gradients over the processes.

        Args:
            forward: over parameters of ``module``, those of them that learn.
        """
        if self.size == 1:
            return forward
        with warnings.catch_warnings():  # the name that older torch knows as well is called old by the newest
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                _Replica(forward, module), broadcast_buffers=False, gradient_as_bucket_view=True
            )


class _Replica(nn.Module):
    def __init__(self, forward: Forward, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._forward = (forward,)  # in a tuple: where it is a module itself, it is not to be registered twice

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > 0:
            return self._forward[0](inputs)
        # The last batch has fewer images than there are ranks. This one takes part in the backward pass all the same,
        # with gradients of zero; many networks cannot run on no image at all.
        return self._forward[0](inputs.new_zeros(1, *inputs.shape[1:]))[:0]


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Meet the other processes that torchrun has started.

    Args:
        device: ``runtime.device``; decides whether tensors on it go through NCCL.

    Raises:
        RankError: within, when another process is gone.
    """
    if not several_processes():
        yield ALONE
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
    try:
        yield ranks
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or any(sign in str(error) for sign in LOST):
            raise RankError(
                f"One of the {ranks.size} processes has died, so the run ends; out of memory is the usual reason, and "
                "torchrun's report names the process. What was saved last is whole: go on with resume=FOLDER OF THE "
                "RUN, with as many processes as you like."
            ) from error
        raise
    distributed.destroy_process_group()
