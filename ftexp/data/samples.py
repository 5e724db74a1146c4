"""A labelled image, as every source lists it, and the order and the spelling of names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ftexp.data.columns import Column, Objects, Paths, Repeating
from ftexp.data.places import LocalFile, Place
from ftexp.data.record_column import Records
from ftexp.data.table import Table

SPLITS = ("train", "val", "test")
# Characters without width: marks of byte order, direction and line breaks. Joiners are not among them, because emoji
# and some scripts need them.
INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image with its label and what else is known about it. The file of the image is not read here.

    Attributes:
        path: the path of the file; for an image in ``pixels`` or in ``place`` a unique name such as ``digits/0042``.
        label: the name of its class.
        split: ``train``, ``val`` or ``test``; None until the source or the splitting has decided it.
        group: the person, patient or slide that it belongs to; samples of a group are not independent.
        time: when the image was taken, as text: an ISO 8601 date or a number.
        pixels: the image as uint8 [H, W, 3], for sources without files.
        white_level: the value that means white in a file of more than 8 bits per channel; None: its full scale.
        place: where the bytes of the image are, if it has no local file of its own.
    """

    path: str
    label: str
    split: str | None = None
    group: str | None = None
    time: str | None = None
    pixels: npt.NDArray[np.uint8] | None = None
    white_level: float | None = None
    place: Place | None = None

    @property
    def origin(self) -> Place:
        """Where the bytes of the image are, unless it is given by its ``pixels``."""
        return LocalFile(self.path) if self.place is None else self.place


class SampleTable(Table[Sample]):
    """Samples in columns: some 60 bytes each, and no Python objects."""

    __slots__ = ()

    row = Sample
    columns_of: ClassVar[dict[str, type[Column]]] = {
        "path": Paths,
        "label": Repeating,
        "split": Repeating,
        "group": Repeating,
        "time": Repeating,
        "pixels": Objects,
        "white_level": Repeating,
        "place": Records,
    }

    def in_order_of_paths(self) -> SampleTable:
        """The same samples, sorted by their paths, letter by letter."""
        paths: list[str] = self.values("path")
        return self.take(sorted(range(len(paths)), key=paths.__getitem__))

    def of_splits(self, *splits: str) -> SampleTable:
        """The samples of these splits, in their order."""
        of_rows = self.values("split")
        return self.take([row for row, split in enumerate(of_rows) if split in splits])


def sorted_naturally(names: Iterable[str]) -> list[str]:
    """Sort names with numbers by value: ``class2`` before ``class10``, and ``2`` before ``10``."""
    # Two sorts by plain strings: with tuples as keys, a million names would take 0.7 GB and half a minute. The name
    # itself comes second, so that "01" and "1" have a fixed order.
    return sorted(sorted(names), key=_with_comparable_numbers)


def _with_comparable_numbers(name: str) -> str:
    """Put the length of each number before it, so that numbers compare by value, and come before letters."""
    return re.sub(r"[0-9]+", lambda number: f"\0{chr(len(digits := number[0].lstrip('0')))}{digits}", name)


def unified(name: str) -> str:
    """The one spelling of names that look the same: composed Unicode (NFC), single spaces, no invisible characters."""
    return " ".join(INVISIBLE.sub("", unicodedata.normalize("NFC", name)).split()) or name


def is_one_line(text: str) -> bool:
    """Whether a name can be printed in one line: it is valid Unicode and has no control characters or line breaks.

    Spaces of any width are allowed: macOS uses a narrow one in the names of screenshots.
    """
    return text.isprintable() or not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)
