"""The images that a command names, and lists of such names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from ftexp.data.samples import Sample
from ftexp.data.sources.named_images import named_image
from ftexp.data.sources.parts import Parts
from ftexp.errors import ConfigError, DataError
from ftexp.inference.given import GivenImage, given_images

STDIN = "-"


class NamedImages:
    """The images that a command names, in order; a list is read line by line as they are taken.

    Args:
        paths: names as of ``named_images``; ``-`` is the list on standard input.
        list_file: a text file that names one image per line; ``-`` is standard input.
        samples: more images, as a data source lists them.

    Attributes:
        paths: those that are no lists.

    Raises:
        ConfigError: when nothing is named, or standard input twice.
        DataError: as ``named_images``, or for a list that cannot be read.
    """

    def __init__(self, paths: Sequence[str], list_file: str | None = None, samples: Sequence[Sample] = ()) -> None:
        self.paths = tuple(path for path in paths if path != STDIN)
        self._paths: list[str | None] = [*paths] if list_file is None else [*paths, None]
        self._list_file = list_file
        self._parts = Parts()  # what has been listed to count the images is not listed again
        self._samples = samples
        if not self._paths and not samples:
            raise ConfigError(
                "No images are named. Give files, folders, globs or URLs after the run, - for a list on standard input,"
                " --files-from FILE, or --data data=SOURCE."
            )
        if [*paths, list_file].count(STDIN) > 1:
            raise ConfigError("Standard input (-) is named twice, and can be read once.")
        self._counts = [self._count(path) for path in self._paths]

    @property
    def total(self) -> int | None:
        """How many there are; None where that is not known before a list has been read."""
        known = [count for count in self._counts if count is not None]
        return sum(known) + len(self._samples) if len(known) == len(self._counts) else None

    def __iter__(self) -> Iterator[GivenImage]:
        """Each one once, not yet opened."""
        for path in self._paths:
            name = self._list_of(path)
            if name is None:
                assert path is not None
                yield from given_images(path, self._parts)
            else:
                for line in _lines(name):
                    image, place = named_image(line, self._parts)
                    yield GivenImage(place, image)
        yield from given_images(self._samples)

    def _list_of(self, path: str | None) -> str | None:
        """The list that an argument stands for; None: it is no list."""
        return self._list_file if path is None else STDIN if path == STDIN else None

    def _count(self, path: str | None) -> int | None:
        name = self._list_of(path)
        if name is None:
            return sum(1 for _ in given_images(path, self._parts))
        if name == STDIN or not os.path.isfile(name):  # what can be read once alone, such as <(find ...)
            return None
        return sum(1 for _ in _lines(name))


def _lines(name: str) -> Iterator[str]:
    """The lines of a text file that are not empty, as they stand there, in any encoding."""
    try:
        with nullcontext(sys.stdin.buffer) if name == STDIN else open(name, "rb") as lines:
            for line in lines:
                path = os.fsdecode(line.rstrip(b"\r\n"))
                if path:
                    yield path
    except OSError as error:
        raise DataError(f"The list of images {name} cannot be read: {error.strerror}.") from error
