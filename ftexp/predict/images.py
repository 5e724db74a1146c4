"""The images that a command names: files, folders and globs, and lists of files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from ftexp.errors import ConfigError, DataError
from ftexp.inference.given import GivenImage, given_images

STDIN = "-"


class NamedImages:
    """The images that a command names, in order; a list is read line by line as they are taken.

    Args:
        paths: files, folders and globs; ``-`` is the list on standard input.
        list_file: a text file that names one image per line; ``-`` is standard input.

    Attributes:
        paths: those of the files, folders and globs.

    Raises:
        ConfigError: when nothing is named, or standard input twice.
        DataError: for a folder without images, a glob that matches nothing, a URL, or a list that cannot be read.
    """

    def __init__(self, paths: Sequence[str], list_file: str | None = None) -> None:
        self.paths = tuple(path for path in paths if path != STDIN)
        self._paths: list[str | None] = [*paths] if list_file is None else [*paths, None]
        self._list_file = list_file
        if not self._paths:
            raise ConfigError(
                "No images are named. Give files, folders or globs after the run, - for a list on standard input, or "
                "--files-from FILE."
            )
        if [*paths, list_file].count(STDIN) > 1:
            raise ConfigError("Standard input (-) is named twice, and can be read once.")
        self._counts = [self._count(path) for path in self._paths]

    @property
    def total(self) -> int | None:
        """How many there are; None where that is not known before a list has been read."""
        known = [count for count in self._counts if count is not None]
        return sum(known) if len(known) == len(self._counts) else None

    def __iter__(self) -> Iterator[GivenImage]:
        """Each one once, not yet opened."""
        for path in self._paths:
            name = self._list_of(path)
            if name is None:
                assert path is not None
                yield from given_images(path)
            else:
                yield from _listed(name)

    def _list_of(self, path: str | None) -> str | None:
        """The list that an argument stands for; None: it is no list."""
        return self._list_file if path is None else STDIN if path == STDIN else None

    def _count(self, path: str | None) -> int | None:
        name = self._list_of(path)
        if name is None:
            return sum(1 for _ in given_images(path))
        if name == STDIN or not os.path.isfile(name):  # what can be read once alone, such as <(find ...)
            return None
        return sum(1 for _ in _listed(name))


def _listed(name: str) -> Iterator[GivenImage]:
    """An image per line of a text file, its name as it stands there, in any encoding."""
    try:
        with nullcontext(sys.stdin.buffer) if name == STDIN else open(name, "rb") as lines:
            for line in lines:
                path = os.fsdecode(line.rstrip(b"\r\n"))
                if path:
                    yield GivenImage(path, path)
    except OSError as error:
        raise DataError(f"The list of images {name} cannot be read: {error.strerror}.") from error
