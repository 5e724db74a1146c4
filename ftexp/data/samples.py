"""One labelled image, as every source lists it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image and what is known about it; the image itself is read only when asked for.

    Attributes:
        path: the file, or a made-up name such as ``digits/0042`` when ``pixels`` holds the image.
        split: ``train``, ``val`` or ``test`` once that is known: from the source or from the splitter.
        group: the unit of independence it belongs to (a person, a patient, a slide).
        time: when it was taken, as an ISO 8601 text.
        pixels: uint8, height x width x 3, for sources without files.
        white_level: the value that is white in a file of more than 8 bits a channel; None: its full scale.
    """

    path: str
    label: str
    split: str | None = None
    group: str | None = None
    time: str | None = None
    pixels: npt.NDArray[np.uint8] | None = None
    white_level: float | None = None


def sorted_naturally(names: Iterable[str]) -> list[str]:
    """Names in the order a person expects: ``class2`` before ``class10``, and ``2`` before ``10``."""

    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        parts = re.split(r"([0-9]+)", name)
        # Numbers before letters; the name itself last, so that "01" and "1" keep one order.
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name

    return sorted(names, key=key)


def is_one_line(text: str) -> bool:
    """Whether a name can stand in a line of a table or a terminal: it has no control characters and is real Unicode.

    Spaces of any width are fine: macOS puts a narrow one into the names of screenshots.
    """
    return text.isprintable() or not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)
