"""The files of a check of labels: the table, the page, and a manifest without the suspects."""

from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ftexp.config import ProbeConfig
from ftexp.data.remote import is_url
from ftexp.data.splitting.splits import COLUMNS
from ftexp.files.whole_file import replaced_whole
from ftexp.probe.features import Features
from ftexp.probe.label_check import LabelCheck
from ftexp.report.label_gallery import JudgedLabel, write_gallery
from ftexp.report.tables import write_rows


def judge(features: Features, check: LabelCheck, neighbours: npt.NDArray[np.int64]) -> list[JudgedLabel]:
    """Every label with its judgement, the least probable first.

    Args:
        features: N samples.
        check: what was found of their labels.
        neighbours: int64 [N, n], indices of the nearest samples; -1 for none.
    """
    return [
        JudgedLabel(
            features.samples[i],
            float(check.given[i]),
            features.classes[check.likely[i]],
            float(check.likely_probability[i]),
            bool(check.suspects[i]),
            bool(check.checked[i]),
            tuple(features.samples[j] for j in neighbours[i].tolist() if j >= 0),
        )
        for i in check.order.tolist()
    ]


def write_labels(folder: Path, judged: Sequence[JudgedLabel], settings: ProbeConfig) -> None:
    """Write ``labels.csv`` with all labels, and ``labels.html`` with the first of them."""
    write_rows(folder / "labels.csv", [_row(rank, one, settings) for rank, one in enumerate(judged, start=1)])
    shown, num_suspects = judged[: settings.gallery], sum(one.suspect for one in judged)
    introduction = (
        f"{num_suspects} of {len(judged)} labels are suspects: another class is at least {settings.odds:g} times as "
        f"probable. The {len(shown)} most suspicious labels are shown, all are in labels.csv. Probabilities are "
        "those of heads that were trained without the image, its group and its copies. "
        "Look before you correct: a rare view of a class looks like a wrong label."
    )
    write_gallery(folder / "labels.html", shown, introduction)


def write_cleaned(
    path: Path, judged: Sequence[JudgedLabel], test: Iterable[Mapping[str, str]], settings: ProbeConfig
) -> str:
    """Write a manifest in which the suspects are left out or relabelled; the test split is in it as it was.

    Args:
        path: the file.
        judged: all labels of train and val.
        test: the rows of the test split.
        settings: says what becomes of suspects.

    Returns:
        A sentence with the settings that use the manifest, or the reason why it was not written.
    """
    if any(one.sample.pixels is not None for one in judged):
        return "cleaned these images are not files, so there is no manifest of them; labels.csv has the suspects."
    kept = sorted((one for one in judged if settings.cleaned == "relabel" or not one.suspect), key=_path)
    rows = [
        {
            "path": _absolute(one.sample.path),
            "label": one.likely if one.suspect else one.sample.label,
            "split": one.sample.split or "",
            "group": one.sample.group or "",
            "time": one.sample.time or "",
        }
        for one in kept
    ]
    rows += [{**row, "path": _absolute(row["path"])} for row in test]
    with replaced_whole(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    columns = "data.split_column=split" + (" data.group_column=group" if any(row["group"] for row in rows) else "")
    what = "left out" if settings.cleaned == "drop" else "relabelled"
    root = _common_folder([row["path"] for row in rows if not is_url(row["path"])])
    places = [_setting("data.file", path.absolute()), *([_setting("data.root", root)] if root else [])]
    used = f"data=manifest {' '.join(places)} {columns}"
    return f"cleaned suspects are {what} in {path}. Train on it with: python -m ftexp {used}"


def _absolute(path: str) -> str:
    return path if is_url(path) else os.path.abspath(path)


def _common_folder(paths: Sequence[str]) -> str | None:
    """The folder that has all these images; None without images. A tar or a table that has some is none."""
    folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else None
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def _row(rank: int, one: JudgedLabel, settings: ProbeConfig) -> dict[str, object]:
    near = [*one.neighbours, *[None] * (settings.neighbours - len(one.neighbours))]
    return {
        "rank": rank,
        "path": one.sample.path,
        "split": one.sample.split,
        "label": one.sample.label,
        "probability": one.probability,
        "likely_label": one.likely,
        "likely_probability": one.likely_probability,
        "suspect": int(one.suspect),
        "checked": int(one.checked),
        **{f"neighbour_{i}": sample and sample.path for i, sample in enumerate(near, start=1)},
        **{f"neighbour_{i}_label": sample and sample.label for i, sample in enumerate(near, start=1)},
    }


def _setting(key: str, value: object) -> str:
    return shlex.quote(f"{key}={value}")


def _path(one: JudgedLabel) -> str:
    return one.sample.path
