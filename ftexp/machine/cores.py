"""The cores of this process."""

from __future__ import annotations

import os


def available_cores() -> int:
    """How many cores this process may run on: under SLURM, taskset or a container's cpuset fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
