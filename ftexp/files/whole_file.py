"""Writes files whole or not at all: under another name first, which is then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced_whole(path: Path, *, durable: bool = False, only_writer: bool = False) -> Iterator[Path]:
    """Replace a file atomically by the one that the ``with`` block writes.

    Readers see the earlier file until the block has ended, and the complete new file afterwards. If the block raises,
    the earlier file stays and the unfinished one is removed.

    Args:
        path: the file to replace or create; its folder must exist.
        durable: whether the content reaches the disk before the file gets its name. After a power cut the name may
            otherwise belong to an empty file, so this is needed for everything that cannot be computed again. It
            takes milliseconds.
        only_writer: whether no other process writes the same file. The unfinished file then has a fixed name, so
            that the next attempt overwrites one that a killed process left behind.

    Yields:
        The path that the block has to write to, in the same folder.

    Raises:
        OSError: with ``path`` as its file name, when it cannot be written; the error of a full disk names no file.
    """
    unfinished = path.with_name(f".{path.name}.tmp" if only_writer else f".{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        if durable:
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        ours = isinstance(error, OSError) and error.filename in (None, str(unfinished), unfinished)
        if isinstance(error, OSError) and error.errno is not None and ours:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
