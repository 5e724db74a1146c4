"""Lists the images of a WebDataset shard with their labels, once: the list is kept until the shard changes."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from ftexp.data.digests import SETTLED_NS
from ftexp.data.places import Container, Part
from ftexp.data.remote import explained, is_url, open_url, reason_of, size_of_url
from ftexp.data.sources.shard_rows import ShardRows, Wanted, storable
from ftexp.data.sources.tar_members import ReadAt, TarReader
from ftexp.errors import DataError
from ftexp.files.whole_file import replaced_whole

log = logging.getLogger(__name__)

# Raise it when an index has other columns or when other members count.
VERSION = 1


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard and its images: a table with the columns name, offset, size, label, group and time."""

    container: Container
    rows: Any


def read_shard(path: str, wanted: Wanted, folder: Path | None) -> Shard:
    """List the images of a shard.

    Args:
        path: of the tar, or its URL.
        wanted: which members count.
        folder: keeps the list; None: it is not kept.

    Raises:
        DataError: when the shard cannot be read, is not complete, has an image without a label, or several images or
            members of one name.
    """
    try:
        container = Container.of(path)
        key = _key(container, wanted)
        kept = folder / f"{key}.parquet" if folder is not None else None
        if kept is not None and kept.exists():
            try:
                return Shard(container, pyarrow.parquet.read_table(kept))
            except (pyarrow.ArrowException, OSError) as error:
                log.warning("data    %s is damaged (%s) and made again.", kept, type(error).__name__)
        with _reading(path) as (read_at, size):
            rows = ShardRows(path, wanted).read(TarReader(path, read_at, size))
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {reason_of(error)}.") from error
    if kept is not None and not _is_settling(path):
        _keep(rows, kept)
    return Shard(container, rows)


def _key(container: Container, wanted: Wanted) -> str:
    path = container.path if is_url(container.path) else os.path.abspath(container.path)
    facts = [VERSION, path, container.state, wanted]
    return hashlib.blake2b(repr(facts).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _is_settling(path: str) -> bool:
    """Whether a file may change once more without a new time."""
    return not is_url(path) and time.time_ns() - os.stat(path).st_mtime_ns < SETTLED_NS


def _keep(rows: Any, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replaced_whole(file) as unfinished:
            pyarrow.parquet.write_table(rows, unfinished, compression="zstd")
    except OSError as error:
        log.warning(
            "data    The list of a shard cannot be kept in %s (%s): the next run reads the shards again. Set data.index"
            " to another folder, or to null.",
            file.parent,
            error.strerror,
        )


def members_of(path: str) -> dict[str, Part]:
    """All regular files in a tar, by their names; where two have one name, the last.

    Raises:
        DataError: when it cannot be read or is not complete.
    """
    try:
        container = Container.of(path)
        with _reading(path) as (read_at, size):
            members = list(TarReader(path, read_at, size).members())
    except OSError as error:
        raise DataError(f"{path}: {reason_of(error)}.") from error
    return {storable(one.name.removeprefix("./")): Part(container, one.offset, one.size) for one in members}


@contextmanager
def _reading(path: str) -> Iterator[tuple[ReadAt, int]]:
    if is_url(path):
        size = size_of_url(path)
        with open_url(path) as stream:
            yield _forwards(stream), size
    else:
        with open(path, "rb", buffering=0) as file:
            yield (lambda offset, count: os.pread(file.fileno(), count, offset)), os.fstat(file.fileno()).st_size


def _forwards(stream: Any) -> ReadAt:
    def read_at(offset: int, count: int) -> bytes:
        try:
            stream.seek(offset)
            return bytes(stream.read(count))
        except Exception as error:  # the file systems raise errors of many libraries
            raise explained(error) from error

    return read_at
