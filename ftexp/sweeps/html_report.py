"""The HTML report of a sweep: one file with its pictures inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ftexp.report.html_page import html_page, image_tag

# In the order in which they are shown: file name, what it shows.
PICTURES = {
    "history.png": "Value by trial",
    "rates.png": "Value by learning rates",
    "importance.png": "How much each setting matters",
    "parallel.png": "Settings and value of every trial",
    "slice.png": "Value by each setting alone",
    "pareto.png": "Trials that no other trial beats in every objective",
}
# A longer text, such as an error, is wrapped; a shorter one stays on one line.
LONG = 60


def write_html_report(folder: Path, content: Mapping[str, Any], trials: Sequence[Mapping[str, object]]) -> None:
    """Write ``sweep.html``. All text is escaped, because settings and errors may hold any characters.

    Args:
        folder: of the sweep; its pictures are put into the report.
        content: of ``sweep.json``.
        trials: rows of ``trials.csv``.
    """
    states = ", ".join(f"{count} {state.lower()}" for state, count in content["trials"].items())
    parts = [
        f"<h1>{escape(str(content['study']))}</h1>",
        f"<p>{escape(states)} of {content['n_trials']} trials, {content['seconds']:.0f} s in all. "
        "All values are of the validation split.</p>",
        *(_best(entry) for entry in content["best"]),
        _confirmed(content["confirm"]),
        *(_picture(folder / name, title) for name, title in PICTURES.items() if (folder / name).exists()),
        "<h2>Trials</h2>",
        _table(trials),
    ]
    (folder / "sweep.html").write_text(html_page(str(content["study"]), parts), encoding="utf-8")


def _best(entry: Mapping[str, Any]) -> str:
    values = ", ".join(f"{name} {value:.4f}" for name, value in entry["values"].items())
    return (
        f"<h2>Best: trial {entry['trial']}, {escape(values)}</h2>"
        + _table([entry["parameters"]])
        + "<p>To run it again with several seeds, and then once with the score of the test split:</p>"
        + f"<code>{escape(entry['command'])}</code>"
    )


def _confirmed(entries: Sequence[Mapping[str, Any]]) -> str:
    return f"<h2>The best trials with other seeds</h2>{_table(entries)}" if entries else ""


def _picture(path: Path, title: str) -> str:
    return f"<h2>{escape(title)}</h2>{image_tag(path.read_bytes(), 'png', title)}"


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    if not rows or not rows[0]:
        return ""
    head = _row("th", rows[0])
    return f"<table>{head}{''.join(_row('td', row.values()) for row in rows)}</table>"


def _row(cell: str, values: Iterable[object]) -> str:
    return "<tr>" + "".join(_cell(cell, _text(value)) for value in values) + "</tr>"


def _cell(cell: str, text: str) -> str:
    if cell == "th":
        return f"<th>{escape(text).replace('.', '.<br>')}</th>"  # so that columns of numbers stay narrow
    return f"{'<td class=long>' if len(text) > LONG else '<td>'}{escape(text)}</td>"


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
