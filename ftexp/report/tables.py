"""Tables as CSV files and as aligned text."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ftexp.files.whole_file import replaced_whole


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    r"""Write a CSV file with one line per row; an older file is replaced atomically.

    Args:
        path: the file; its folder must exist.
        rows: values by column name. Columns stand in the order they first appear; numbers keep every
            digit, and None or a missing value is an empty field. Bytes of a file name that are no UTF-8 are written as
            ``\udcff``.
    """
    with (
        replaced_whole(path) as unfinished,
        unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.DictWriter(file, _columns(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def format_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Format rows as text with a heading and right-aligned numbers; empty if there are no rows."""
    columns = _columns(rows)
    cells = [columns, *([_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    to_right = [all(_is_number(row.get(name)) for row in rows) for name in columns]
    lines = []
    for line in cells:
        aligned = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, to_right, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines) if rows else ""


def _columns(rows: Iterable[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    # The name of a class or a file may contain line breaks or control sequences.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
