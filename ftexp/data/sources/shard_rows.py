"""Puts the members of a WebDataset shard together: an image, its label, and what else its JSON says."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any

import pyarrow

from ftexp.data.samples import is_one_line
from ftexp.data.sources.folders import CLUTTER, has_image_suffix
from ftexp.data.sources.several_labels import SEVERAL_LABELS
from ftexp.data.sources.tar_members import Member, ReadAt, TarReader
from ftexp.errors import DataError, listed, shorten

log = logging.getLogger(__name__)

# The longest label, group or time, and the largest JSON, in characters and bytes.
MAX_NAME, MAX_JSON = 200, 2**20
# How the names of hidden files and of WebDataset's own notes begin.
_HIDDEN = (".", "__")


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


@dataclass(slots=True)
class ShardRows:
    """Collects the images, labels and other facts of a shard by the key that their members share."""

    shard: str
    wanted: Wanted
    images: dict[str, Member] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=lambda: {"label": {}, "group": {}, "time": {}})
    kinds: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    keys_of_json: list[str] = field(default_factory=list)

    def read(self, tar: TarReader) -> Any:
        """The table of the shard."""
        for member in tar.members():
            name = member.name.removeprefix("./")
            if is_hidden(name):
                continue
            if name in self.seen:
                raise DataError(f"{self.shard} has two members called {name}. Write it again with one of them.")
            self.seen.add(name)
            dot = name.find(".", name.rfind("/") + 1)
            key, extension = (name[:dot], name[dot + 1 :]) if dot >= 0 else (name, "")
            if extension not in self.kinds:
                self.kinds[extension] = self._kind(extension.lower())
            self._add(self.kinds[extension], key, extension.lower(), member, tar.read)
        labels = self.facts["label"]
        for key, image in self.images.items():
            if key not in labels:
                raise DataError(f"{self.shard}: {image.name} has no label. {self._way_out()}")
        alone = labels.keys() - self.images.keys()
        if alone:
            log.warning(
                "data    %s: %d labels have no image and are not used, for example that of %s.",
                self.shard,
                len(alone),
                min(alone),
            )
        return self._table()

    def _kind(self, extension: str) -> str:
        """What a member with this extension is."""
        only = self.wanted.image_member
        if extension == only if only is not None else has_image_suffix(f".{extension}"):
            return "image"
        return extension if extension in ("cls", "json") else ""

    def _add(self, kind: str, key: str, extension: str, member: Member, read: ReadAt) -> None:
        if kind == "image":
            if key in self.images:
                raise DataError(
                    f"{self.shard} has two images with the key {key}: {self.images[key].name} and {member.name}. Say"
                    f" which one counts: data.image_member={extension}."
                )
            self.images[key] = member
        elif kind == "cls" and self.wanted.label_key is None:
            content = read(member.offset, min(member.size, 4 * MAX_NAME + 1))
            try:
                text = content.decode("utf-8-sig").strip()
            except UnicodeDecodeError:
                raise DataError(f"{self.shard}: {member.name} is not UTF-8 text.") from None
            self._set(member.name, key, "label", text)
        elif kind == "json" and (self.wanted.keys or not self.keys_of_json):
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
        self.facts[role][key] = text

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
            return pyarrow.array([self.facts[role].get(key) for key in self.images], pyarrow.string())

        return pyarrow.table(
            {
                "name": pyarrow.array([storable(image.name.removeprefix("./")) for image in images], pyarrow.string()),
                "offset": pyarrow.array([image.offset for image in images], pyarrow.int64()),
                "size": pyarrow.array([image.size for image in images], pyarrow.int64()),
                "label": column("label").dictionary_encode(),
                "group": column("group").dictionary_encode(),
                "time": column("time").dictionary_encode(),
            }
        )


def is_hidden(name: str) -> bool:
    """Whether a member of a tar is no data: a hidden file, clutter, or a note of WebDataset's own."""
    last = name.rpartition("/")[2]
    return not last or last.startswith(_HIDDEN) or last.lower() in CLUTTER


def storable(name: str) -> str:
    """A name that UTF-8 can have; bytes of another encoding are written as ``\\xe9``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
