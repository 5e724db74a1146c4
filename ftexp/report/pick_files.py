"""The files of a choice of images to label: the table, and the page with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ftexp.data.samples import Sample
from ftexp.files.whole_file import replaced_whole
from ftexp.probe.picking import Pick
from ftexp.report.html_page import html_page
from ftexp.report.tables import write_rows
from ftexp.report.thumbnails import thumbnail

SIDE_PIXELS = 144
PICKS, PAGE = "picks.csv", "picks.html"


def write_picks(folder: Path, samples: Sequence[Sample], picks: Sequence[Pick], classes: Sequence[str]) -> None:
    """Write ``picks.csv`` and ``picks.html``.

    Args:
        folder: where they are written.
        samples: the images that could be picked.
        picks: the picks, best first.
        classes: the names of the classes.
    """
    chosen = [(samples[pick.row], pick) for pick in picks]
    write_rows(folder / PICKS, [_row(rank, *one, classes) for rank, one in enumerate(chosen, start=1)])
    title = "Images to label next"
    introduction = (
        f"{len(picks)} of {len(samples)} images, the one that helps most first; picks.csv has them as a table. A head "
        "of the labelled images is unsure of each of them or of images like it; they are unlike the labelled ones and "
        "each other. Probable labels are guesses: look before you take one over."
    )
    head = "<tr><th>rank</th><th>image</th><th>probable label</th><th>why</th></tr>"
    rows = "".join(_html_row(rank, *one, classes) for rank, one in enumerate(chosen, start=1))
    page = html_page(title, [f"<h1>{title}</h1>", f"<p>{escape(introduction)}</p>", f"<table>{head}{rows}</table>"])
    with replaced_whole(folder / PAGE) as unfinished:
        unfinished.write_text(page, encoding="utf-8", errors="replace")


def why(pick: Pick, classes: Sequence[str]) -> str:
    """Why an image was picked, in a few words."""
    one = pick.stands_for == 1
    return (
        f"{classes[pick.likely]} {pick.probability:.2f} or {classes[pick.second]} {pick.second_probability:.2f}; "
        f"{pick.stands_for} other{'' if one else 's'} {'is' if one else 'are'} more like it than like a labelled or "
        "earlier one"
    )


def _row(rank: int, sample: Sample, pick: Pick, classes: Sequence[str]) -> dict[str, object]:
    return {
        "rank": rank,
        "path": sample.path,
        "probable_label": classes[pick.likely],
        "probability": pick.probability,
        "second_label": classes[pick.second],
        "second_probability": pick.second_probability,
        "stands_for": pick.stands_for,
        "why": why(pick, classes),
    }


def _html_row(rank: int, sample: Sample, pick: Pick, classes: Sequence[str]) -> str:
    image = f"{thumbnail(sample, SIDE_PIXELS)}<br><small>{escape(sample.path)}</small>"
    label = f"<b>{escape(classes[pick.likely])}</b> ({pick.probability:.3f})"
    return f"<tr><td>{rank}</td><td class=long>{image}</td><td>{label}</td><td>{escape(why(pick, classes))}</td></tr>\n"
