"""What torchrun tells the processes it starts, and what they have to settle before any of them trains.

Only functions that need it import torch: without torchrun, none of them is ever called.
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
# The first process alone has a folder, writes to it and speaks.
QUIET = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]


def several_processes() -> bool:
    """Whether torchrun has started this process as one of several."""
    return all(name in os.environ for name in VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


def is_main() -> bool:
    """Whether this process is the only one, or the first."""
    return not several_processes() or os.environ["RANK"] == "0"


def same_arguments(arguments: Sequence[str]) -> list[str]:
    """The first process's arguments, in all of them; in the others with what keeps them quiet.

    They could differ where they follow from what lies in a folder (``resume=auto``).
    """
    if is_main():
        store().set("arguments", json.dumps(list(arguments)))
        return list(arguments)
    logging.disable(logging.CRITICAL)
    given = json.loads(store().get("arguments"))
    return [argument for argument in given if not argument.startswith(("hydra.", "hydra/"))] + QUIET


def may_speak() -> bool:
    """Whether this process is the first that has something to say about how it ends; the others then say the same."""
    if not several_processes():
        return True
    try:
        return bool(store().add("has spoken", 1) == 1)
    except RuntimeError:  # the one that kept the store is gone: better twice than never
        return True


@cache
def store() -> Store:
    """Where torchrun's processes leave word for one another."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    found, _, _ = next(rendezvous("env://"))
    return PrefixStore("ftexp", found)
