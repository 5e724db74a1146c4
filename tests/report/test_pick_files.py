"""The table and the page of images to label next."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from ftexp.data.samples import Sample
from ftexp.probe.picking import Pick
from ftexp.report.pick_files import why, write_picks

EVIL = "<script>alert('x')</script>"


def test_the_table_and_the_page(tmp_path: Path) -> None:
    (tmp_path / EVIL.replace("/", "")).mkdir()
    samples = [Sample(str(tmp_path / EVIL.replace("/", "") / f"{i}.png"), EVIL) for i in range(3)]
    for sample in samples[:2]:
        Image.new("RGB", (200, 100), (40, 0, 0)).save(sample.path)
    picks = [Pick(2, 0, 0.5, 1, 0.4, 12), Pick(0, 1, 0.75, 0, 0.25, 1)]
    write_picks(tmp_path, samples, picks, (EVIL, "bee"))
    with (tmp_path / "picks.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["rank"], first["path"], first["probable_label"]) == ("1", samples[2].path, EVIL)
    assert (first["probability"], first["second_label"], first["second_probability"]) == ("0.5", "bee", "0.4")
    assert (second["path"], second["stands_for"]) == (samples[0].path, "1")
    assert second["why"] == f"bee 0.75 or {EVIL} 0.25; 1 other is more like it than like a labelled or earlier one"
    html = (tmp_path / "picks.html").read_text()
    assert html.count("data:image/jpeg;base64,") == 1
    assert html.count("(cannot be read any more)") == 1  # the third has no file
    assert "2 of 3 images" in html
    assert "<script" not in html
    assert html.index("2.png") < html.index("0.png")


@pytest.mark.parametrize(("stands_for", "others"), [(0, "0 others are"), (1, "1 other is"), (9, "9 others are")])
def test_why(stands_for: int, others: str) -> None:
    pick = Pick(0, 0, 0.512, 1, 0.488, stands_for)
    assert (
        why(pick, ("ant", "bee")) == f"ant 0.51 or bee 0.49; {others} more like it than like a labelled or earlier one"
    )
