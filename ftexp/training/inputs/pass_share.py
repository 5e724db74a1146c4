"""Which part of a pass over images is this process's: one of all processes, or one of those of its machine.

All processes share a pass if what one of them keeps can be read by the others.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from ftexp.machine.distributed import Ranks

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """The part of this process in a pass.

    Attributes:
        number: the number of this process among those that share the pass, from 0.
        size: the number of these processes.
    """

    number: int
    size: int

    @property
    def is_first(self) -> bool:
        """Whether this process puts together what all of them have computed."""
        return self.number == 0

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """The items of this process; they follow each other, and the processes together have every item once."""
        return items[len(items) * self.number // self.size : len(items) * (self.number + 1) // self.size]


def share_of(key: str, folder: Path, ranks: Ranks) -> Share:
    """The part of this process; all processes have to call it.

    Args:
        key: the name under which this process looks for the result. Machines whose hardware or versions differ have
            other names, and other results.
        folder: where this process keeps it.
        ranks: the processes of the run.
    """
    everyone, of_machine = Share(ranks.rank, ranks.size), Share(ranks.local_rank, ranks.local_size)
    if of_machine.size == everyone.size:
        return everyone
    if not _is_common(folder, ranks):
        _say(f"do not share runtime.cache_folder={folder}")
    elif len(set(ranks.all_gather(key))) > 1:
        _say("differ in hardware or versions")
    else:
        return everyone
    return of_machine


@cache
def _is_common(folder: Path, ranks: Ranks) -> bool:
    """Whether every process finds a file in the folder that the first one has just put there; asked once per run."""
    name = ranks.broadcast(lambda: _leave_mark(folder))
    hidden = ranks.all_reduce_max(name is None or not (folder / name).exists())
    if ranks.is_main and name is not None:
        (folder / name).unlink(missing_ok=True)
    return not hidden


def _leave_mark(folder: Path) -> str | None:
    """The name of a new file that can be nowhere else; None if the folder cannot be used, which the store reports."""
    name = f"{uuid.uuid4().hex}.mark"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    except OSError:
        return None
    return name


@cache
def _say(why: str) -> None:
    log.info("cache   the machines of this run %s: each runs the frozen blocks on all images, for itself", why)
