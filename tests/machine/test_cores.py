"""Cores are those that this process may run on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinities")
def test_a_process_limited_to_one_core_counts_one() -> None:
    held = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    count = "from ftexp.machine.cores import available_cores; print(available_cores())"
    command = [sys.executable, "-c", f"{held}; {count}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == "1\n"
