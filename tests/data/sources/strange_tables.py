"""Tables as strangers might bring them, drawn from a seed, for the fuzz: one way of writing them each time."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
from strange_folders import Case, images_on_disk

# A path as it stands in the table, and a label.
Row = tuple[str, str]

HEADERS = (*(("path", "label"),) * 5, (" path ", " label"), ("path", "lable"), ("Path", "label"))
SUFFIXES = (".csv", ".csv", ".CSV", ".tsv", ".txt", ".parquet", ".parquet", ".xlsx")
ENCODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1")
LOST = ("gone.png", "", "../x.png", "C:\\x.png", "s3://bucket/x.png", "y" * 10_000, "/dev/null", ".", "a\0b")


def write_table(case: Case) -> tuple[Path, int | None]:
    """Write a table of the images that lie on disk; also returns its number of rows, None where it is cut short."""
    paths = [path for path in images_on_disk(case.root) if str(path).isprintable()]
    rows = _mistakes(case, [(_spelt(case, path), path.parent.name) for path in paths])
    header = HEADERS[int(case.rng.integers(len(HEADERS)))]
    file = case.root / f"table{case.pick(*SUFFIXES)}"
    if file.suffix == ".parquet":
        _write_parquet(case, file, header, rows)
    else:
        _write_text(case, file, header, rows)
        if case.rng.random() < 0.1:
            file.write_bytes(file.read_bytes()[: int(case.rng.integers(0, 200))])
            return file, None
    return file, len(rows)


def _spelt(case: Case, path: Path) -> str:
    relative = os.path.relpath(path, case.root)
    return case.pick(relative, relative, str(path), f"./{relative}", relative.replace("/", "\\"))


def _mistakes(case: Case, rows: list[Row]) -> list[Row]:
    chance = case.rng.random()
    if chance < 0.15:
        rows.append((case.pick(*LOST), "cat"))
    elif chance < 0.3 and rows:
        rows.append((rows[0][0], case.pick(rows[0][1], "another")))
    elif chance < 0.4:
        rows = [(path, case.pick("a|b", "a", "['a']", "", "z" * 1000)) for path, _ in rows]
    return rows


def _write_text(case: Case, file: Path, header: tuple[str, str], rows: list[Row]) -> None:
    text = io.StringIO()
    delimiter = case.pick(",", ";", "\t", "|")
    if case.rng.random() < 0.1:
        text.write(f"sep={delimiter}\n")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=case.pick("\n", "\r\n", "\r"))
    index = case.rng.random() < 0.2
    writer.writerow(("", *header) if index else header)
    writer.writerows((str(number), *row) if index else row for number, row in enumerate(rows))
    file.write_bytes(text.getvalue().encode(case.pick(*ENCODINGS), "replace"))


def _write_parquet(case: Case, file: Path, header: tuple[str, str], rows: list[Row]) -> None:
    paths: list[object] = [path for path, _ in rows]
    labels: list[object] = [label for _, label in rows]
    kind = case.pick("paths", "bytes", "hub", "lists")
    content = [_content(case.root / path) for path, _ in rows]
    if kind == "bytes":
        paths = list(content)
    elif kind == "hub":
        paths = [{"bytes": one, "path": None} for one in content]
    elif kind == "lists":
        labels = [[label] for label in labels]
    pyarrow.parquet.write_table(pyarrow.table({header[0]: paths, header[1]: labels}), file)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError):
        return b""
