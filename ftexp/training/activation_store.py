"""Activations kept on disk between phases, trials and runs, under names that say all they depend on.

A file appears whole or not at all, is read through a memory map, and goes when newer ones need its place.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock

log = logging.getLogger(__name__)


class ActivationStore:
    """A folder of tensors by key, the least recently used of which make room for new ones.

    Args:
        folder: made when it is first needed; None: nothing is kept.
        limit_gib: most that all files together may take.
    """

    def __init__(self, folder: Path | None, limit_gib: float) -> None:
        self._folder = folder
        self.limit_bytes = int(limit_gib * 2**30)

    def get(self, key: str, compute: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, bool]:
        """The tensor of a key, computed by the first who asks while all others wait.

        Returns:
            The tensor on the CPU if it was there already, else as computed; and whether it was there.
        """
        if self._folder is None:
            return compute(), False
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{key}.pt"
        with FileLock(self._folder / f"{key}.lock"):
            if (found := _read(file)) is not None:
                os.utime(file)  # used just now
                return found, True
            tensor = compute()
            self._make_room(tensor.nbytes, spare=file)
            unfinished = file.with_suffix(".tmp")
            torch.save(tensor.cpu(), unfinished)
            os.replace(unfinished, file)
            return tensor, False

    def _make_room(self, num_bytes: int, spare: Path) -> None:
        assert self._folder is not None
        files = sorted(self._folder.glob("*.pt"), key=lambda file: file.stat().st_mtime)
        used = sum(file.stat().st_size for file in files)
        for file in files:
            if used + num_bytes <= self.limit_bytes:
                return
            if file != spare:
                used -= file.stat().st_size
                file.unlink(missing_ok=True)  # who has it mapped keeps it


def _read(file: Path) -> torch.Tensor | None:
    """A kept tensor through a memory map; None when it is not there, or damaged."""
    if not file.exists():
        return None
    try:
        tensor = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, OSError, EOFError) as error:
        log.warning("cache   %s is damaged (%s); its activations are computed anew.", file, type(error).__name__)
        file.unlink(missing_ok=True)
        return None
    assert isinstance(tensor, torch.Tensor)
    return tensor
