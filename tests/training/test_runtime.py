from __future__ import annotations

import subprocess
import sys

import pytest

# How many pages a tensor costs when equal ones were made and given back before it. The first few still find the place.
COUNT_PAGES = """
import resource, sys, torch
from ftexp.training.runtime import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(5):
    torch.ones(64, 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(64, 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_of_the_last(how: str) -> int:
    command = [sys.executable, "-c", COUNT_PAGES, how]
    # Where pages are huge, both numbers are smaller; the ratio is not.
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's memory")
def test_what_one_tensor_gives_back_the_next_one_takes() -> None:
    assert pages_of_the_last("keep") < pages_of_the_last("default") / 10
