"""The kinds of findings of an audit, and the table of findings."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from ftexp.data.samples import Sample

Severity = Literal["fail", "warn"]

_TIE = "data.tie_duplicates=true (with data.split=stratified if the data has splits of its own)"

# In place of it, where that is set already, and the data came with a test split that is kept.
_NOT_TIED = (
    "data.split=stratified, which makes a new test split (now the data's own test split is kept, and "
    "data.tie_duplicates=true moves none of its images), or leave out the images of train and val that are also in test"
)

# Kind -> its meaning, and the setting or the action that fixes it.
KINDS: dict[str, tuple[str, str]] = {
    "same_image": ("the same image in two splits", _TIE),
    "near_duplicate": ("nearly the same image in two splits", _TIE),
    "edited_copy": ("one picture, edited (turned, framed, with text, recoloured) or taken again, in two splits", _TIE),
    "same_scene": (
        "photographs of one scene or object in two splits",
        "data.split=group with a group for each scene, or audit.on_scene=ignore if that is how it will be in use",
    ),
    "group": (
        "a group in two splits",
        "data.split=group (for a group of the data's own test split: remove its images from train and val)",
    ),
    "time": ("training on images later than those of a later split", "data.split=time"),
    "two_labels": ("one picture, or nearly the same, under two labels", "remove or relabel one of each pair"),
    "repeat": ("the same image again in one split", "keep one of each"),
    "near_repeat": ("nearly the same image again in one split", "look at these pairs, and keep one of each"),
    "one_colour": ("an image of a single colour", "look at these files, and remove those that show nothing"),
    "black": ("an image that is nearly black", "look at these files; data.white_level can help for those of 16 bits"),
    "saturated": ("an image that is nearly all white", "look at these files; they can be overexposed"),
    "shortcut": (
        "the label can be predicted without the image",
        "audit.on_leak=off if you know that it is harmless",
    ),
}


def remedy_of(kind: str, *, tied: bool) -> str:
    """The setting or the action that fixes a kind; ``tied``: whether ``data.tie_duplicates`` is set already."""
    remedy = KINDS[kind][1]
    return _NOT_TIED if tied and remedy == _TIE else remedy


@dataclass(frozen=True, slots=True)
class Finding:
    """A pair of samples that leaks or is one image twice, a blank image, or a field from which the label can be
    predicted (a shortcut).

    Attributes:
        kind: a key of ``KINDS``.
        severity: ``fail`` stops the run.
        split_a, path_a: the split and the path of the (first) image; for a shortcut ``train`` and the field.
        split_b, path_b: those of the second image; empty for a blank image. For a shortcut, ``path_b`` states the
            accuracy by chance.
        score: 1 for exact findings; the similarity of near duplicates; for an edited copy and a scene, the share of the
            aligned pixels that agree; the balanced accuracy of a shortcut; for ``time``, the fraction of the earlier
            split that is not before the later one.
        inliers: the points that match when two pictures are aligned; None where they were not.
    """

    kind: str
    severity: Severity
    split_a: str
    path_a: str
    split_b: str
    path_b: str
    score: float
    inliers: int | None = None


def finding(
    kind: str, severity: Severity, first: Sample, second: Sample, score: float, inliers: int | None = None
) -> Finding:
    """A finding about two samples, each of which is in a split."""
    assert first.split is not None
    assert second.split is not None
    return Finding(kind, severity, first.split, first.path, second.split, second.path, score, inliers)


def write_leaks(path: Path, findings: Sequence[Finding]) -> None:
    """Write ``kind,severity,split_a,path_a,split_b,path_b,score,inliers``, one row per finding."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Finding)])
        writer.writerows([*astuple(one)[:-2], f"{one.score:.4f}", one.inliers] for one in findings)
