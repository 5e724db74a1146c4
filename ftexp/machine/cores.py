"""The cores that this process can use."""

from __future__ import annotations

import os


def available_cores() -> int:
    """The number of cores that this process may run on; SLURM, taskset and cpusets of containers can reduce it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
