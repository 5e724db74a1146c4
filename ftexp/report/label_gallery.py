"""The page of labels that are probably wrong: every image beside its nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ftexp.data.samples import Sample
from ftexp.files.whole_file import replaced_whole
from ftexp.report.html_page import html_page
from ftexp.report.thumbnails import thumbnail

SIDE_PIXELS = 144
NEIGHBOUR_PIXELS = 96


@dataclass(frozen=True, slots=True)
class JudgedLabel:
    """An image whose label was judged.

    Attributes:
        sample: the image with its given label.
        probability: of the given label.
        likely: the name of the likely class.
        likely_probability: of the likely class.
        suspect: whether the label is a suspect.
        checked: False where all images of the class are in one group, so that no head without it knows the class.
        neighbours: the nearest images of other groups.
    """

    sample: Sample
    probability: float
    likely: str
    likely_probability: float
    suspect: bool
    checked: bool
    neighbours: tuple[Sample, ...]


def write_gallery(path: Path, judged: Sequence[JudgedLabel], introduction: str) -> None:
    """Write the page, a row for each image; all text is escaped.

    Args:
        path: the HTML file.
        judged: the images in the order of the rows.
        introduction: a few sentences that lead the page, as plain text.
    """
    title = "Labels that are probably wrong"
    head = "<tr><th>rank</th><th>image</th><th>labels</th><th colspan=99>nearest images of other groups</th></tr>"
    rows = "".join(_row(rank, one) for rank, one in enumerate(judged, start=1))
    page = html_page(
        title, [f"<h1>{title}</h1>", f"<p>{escape(introduction)}</p>", f"<table>{head}{rows}</table>" if rows else ""]
    )
    with replaced_whole(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8", errors="replace")


def _row(rank: int, one: JudgedLabel) -> str:
    labels = (
        f"given: <b>{escape(one.sample.label)}</b> ({one.probability:.3f})<br>"
        f"likely: <b>{escape(one.likely)}</b> ({one.likely_probability:.3f})<br>{'suspect' if one.suspect else ''}"
    )
    image = f"{thumbnail(one.sample, SIDE_PIXELS)}<br><small>{escape(one.sample.path)}</small>"
    around = "".join(
        f"<td>{thumbnail(near, NEIGHBOUR_PIXELS)}<br><small>{escape(near.label)}</small></td>"
        for near in one.neighbours
    )
    return f"<tr><td>{rank}</td><td class=long>{image}</td><td>{labels}</td>{around}</tr>\n"
