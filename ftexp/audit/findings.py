"""What an audit can find, and the table of it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

Severity = Literal["fail", "warn"]

_TIE = "data.tie_duplicates=true (with data.split=stratified where the data brings its own splits)"

# Kind -> what it means, and the one setting that would fix it.
KINDS: dict[str, tuple[str, str]] = {
    "same_image": ("the same image in two splits", _TIE),
    "near_duplicate": ("nearly the same image in two splits", _TIE),
    "group": (
        "a group in two splits",
        "data.split=group (a group of the data's own test split: take its images out of train and val)",
    ),
    "time": ("training on the future of a later split", "data.split=time"),
    "two_labels": ("the same image under two labels", "remove or relabel one of each pair"),
    "one_colour": ("an image of one colour alone", "look at these files; remove those that show nothing"),
    "black": ("an image that is nearly black", "look at these files; data.white_level may help those of 16 bits"),
    "saturated": ("an image that is nearly all white", "look at these files; they may be overexposed"),
    "shortcut": (
        "the label can be told without looking at the image",
        "audit.on_leak=off once you know it is harmless",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A pair of samples that leaks; one image that shows nothing; or the field that gives the label away.

    Attributes:
        split_b, path_b: empty where one image is meant.
        score: 1 for exact findings; how alike the images are; a shortcut's balanced accuracy.
    """

    kind: str
    severity: Severity
    split_a: str
    path_a: str
    split_b: str
    path_b: str
    score: float


def write_leaks(path: Path, findings: Sequence[Finding]) -> None:
    """Write ``kind,severity,split_a,path_a,split_b,path_b,score``, one row per finding."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Finding)])
        writer.writerows([*astuple(finding)[:-1], f"{finding.score:.4f}"] for finding in findings)
