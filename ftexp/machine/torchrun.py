"""Reads what torchrun tells its processes, and lets them agree on their arguments before training.

Only functions that need torch import it, and without torchrun none of them is called.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Arguments of all processes but the first, which alone writes to the folder of the run and prints messages.
QUIET = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]


def several_processes() -> bool:
    """Whether torchrun has started this process as one of several."""
    return all(name in os.environ for name in VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


def is_main() -> bool:
    """Whether this process is the only one, or the first."""
    return not several_processes() or os.environ["RANK"] == "0"


def same_arguments(arguments: Sequence[str]) -> list[str]:
    """Give all processes the arguments of the first one, and make the others quiet.

    Without this the arguments could differ, because ``resume=auto`` depends on the content of a folder.
    """
    if is_main():
        store().set("arguments", json.dumps(list(arguments)))
        return list(arguments)
    logging.disable(logging.CRITICAL)
    given = json.loads(store().get("arguments"))
    return [argument for argument in given if not argument.startswith(("hydra.", "hydra/"))] + QUIET


def is_first_to_report() -> bool:
    """Whether this process is the first one that reports its end. The others would print the same message."""
    if not several_processes():
        return True
    try:
        return bool(store().add("has spoken", 1) == 1)
    except RuntimeError:  # the process with the store has died; a repeated message is better than none
        return True


@cache
def store() -> Store:
    """The key-value store by which the processes of torchrun exchange texts."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    found, _, _ = next(rendezvous("env://"))
    return PrefixStore("ftexp", found)
