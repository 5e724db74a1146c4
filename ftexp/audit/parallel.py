"""Batches side by side, each on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def map_batches(compute: Callable[..., T], *batches: Iterable[object]) -> list[T]:
    """``list(map(compute, *batches))`` on the CPU, as many batches at once as torch may use threads.

    Threads that share each small operation wait for one another at each, and for hundreds of times as long when another
    process has one of their cores: what one thread does in 1.1 s took two 9 to 47 s on a busy machine of two cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that begin from here on take it over
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(compute, *batches))
    finally:
        torch.set_num_threads(threads)
