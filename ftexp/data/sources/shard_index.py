"""Lists the images of a WebDataset shard with their labels, once: the list is kept until the shard changes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from ftexp.data.digests import SETTLED_NS
from ftexp.data.places import Container
from ftexp.data.remote import is_url, open_url, reason_of, size_of_url
from ftexp.data.samples import is_one_line
from ftexp.data.sources.folders import CLUTTER, has_image_suffix
from ftexp.data.sources.several_labels import SEVERAL_LABELS
from ftexp.data.sources.tar_members import Member, ReadAt, TarReader
from ftexp.errors import DataError, listed, shorten
from ftexp.files.whole_file import replaced_whole

log = logging.getLogger(__name__)

# Raise it when an index has other columns or when other members count.
VERSION = 1
# The longest label, group or time, and the largest JSON, in characters and bytes.
MAX_NAME, MAX_JSON = 200, 2**20


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which members of a shard are images and labels; the settings of the same names of ``data=webdataset``."""

    image_member: str | None = None
    label_key: str | None = None
    group_key: str | None = None
    time_key: str | None = None

    @property
    def keys(self) -> dict[str, str]:
        """Role -> key in the JSON."""
        keys = {"label": self.label_key, "group": self.group_key, "time": self.time_key}
        return {role: key for role, key in keys.items() if key is not None}


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
            rows = _Rows(path, wanted).read(TarReader(path, read_at, size))
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
        stream.seek(offset)
        return bytes(stream.read(count))

    return read_at


@dataclass(slots=True)
class _Rows:
    """Collects the images, labels and other facts of a shard by the key that their members share."""

    shard: str
    wanted: Wanted
    images: dict[str, Member] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    keys_of_json: list[str] = field(default_factory=list)

    def read(self, tar: TarReader) -> Any:
        """The table of the shard."""
        for member in tar.members():
            folder, _, file = member.name.removeprefix("./").rpartition("/")
            if file[:1] in (".", "") or file.startswith("__") or file.lower() in CLUTTER or folder == "__MACOSX":
                continue
            if member.name in self.seen:
                raise DataError(f"{self.shard} has two members called {member.name}. Write it again with one of them.")
            self.seen.add(member.name)
            stem, _, extension = file.partition(".")
            self._add(f"{folder}/{stem}" if folder else stem, extension.lower(), member, tar.read)
        for key, image in self.images.items():
            if "label" not in self.facts.get(key, ()):
                raise DataError(f"{self.shard}: {image.name} has no label. {self._way_out()}")
        alone = self.facts.keys() - self.images.keys()
        if alone:
            log.warning(
                "data    %s: %d labels have no image and are not used, for example that of %s.",
                self.shard,
                len(alone),
                min(alone),
            )
        return self._table()

    def _add(self, key: str, extension: str, member: Member, read: ReadAt) -> None:
        only = self.wanted.image_member
        if extension == only if only is not None else has_image_suffix(member.name):
            if key in self.images:
                raise DataError(
                    f"{self.shard} has two images with the key {key}: {self.images[key].name} and {member.name}. Say"
                    f" which one counts: data.image_member={extension}."
                )
            self.images[key] = member
        elif extension == "cls" and self.wanted.label_key is None:
            content = read(member.offset, min(member.size, 4 * MAX_NAME + 1))
            try:
                text = content.decode("utf-8-sig").strip()
            except UnicodeDecodeError:
                raise DataError(f"{self.shard}: {member.name} is not UTF-8 text.") from None
            self._set(member.name, key, "label", text)
        elif extension == "json" and (self.wanted.keys or not self.keys_of_json):
            self._add_json(key, member, read)

    def _add_json(self, key: str, member: Member, read: ReadAt) -> None:
        try:
            content = json.loads(read(member.offset, min(member.size, MAX_JSON)))
        except ValueError as error:
            if not self.wanted.keys:
                return
            raise DataError(f"{self.shard}: {member.name} is not JSON ({error}).") from error
        content = content if isinstance(content, dict) else {"": content}
        self.keys_of_json = self.keys_of_json or list(content)
        for role, name in self.wanted.keys.items():
            value = content.get(name)
            if value is None:
                raise DataError(
                    f"{self.shard}: {member.name} has no {name!r} (data.{role}_key). It has: {listed(list(content))}."
                )
            if isinstance(value, (dict, list)):
                raise DataError(f"{self.shard}: {name!r} of {member.name} is a list. {SEVERAL_LABELS}")
            whole = isinstance(value, float) and value.is_integer()
            self._set(member.name, key, role, str(int(value) if whole else value).strip())

    def _set(self, member: str, key: str, role: str, text: str) -> None:
        if not text or len(text) > MAX_NAME or not is_one_line(text):
            what = shorten(repr(text)) if text else "nothing"
            raise DataError(f"{self.shard}: {member} contains {what}, which cannot be a {role}.")
        self.facts.setdefault(key, {})[role] = text

    def _way_out(self) -> str:
        if self.wanted.label_key is not None:
            return f"Give each image a .json with the key {self.wanted.label_key!r}, or remove it."
        if self.keys_of_json:
            named = listed(self.keys_of_json, 12)
            return f"Give each image a .cls, or say which key of its .json is the label: data.label_key=… ({named})."
        return "Give each image a .cls with its class, or remove it."

    def _table(self) -> Any:
        images = list(self.images.values())

        def column(role: str) -> Any:
            return pyarrow.array([self.facts.get(key, {}).get(role) for key in self.images], pyarrow.string())

        return pyarrow.table(
            {
                "name": pyarrow.array([_storable(image.name) for image in images], pyarrow.string()),
                "offset": pyarrow.array([image.offset for image in images], pyarrow.int64()),
                "size": pyarrow.array([image.size for image in images], pyarrow.int64()),
                "label": column("label").dictionary_encode(),
                "group": column("group").dictionary_encode(),
                "time": column("time").dictionary_encode(),
            }
        )


def _storable(name: str) -> str:
    """A name that UTF-8 can have; bytes of another encoding are written as ``\\xe9``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
