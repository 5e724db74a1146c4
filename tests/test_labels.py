"""``python -m ftexp.labels`` as a user runs it."""

from __future__ import annotations

import csv
from pathlib import Path

from conftest import CommandLine
from small_pictures import SETTINGS, small_pictures

from ftexp.labels import main

__all__ = ["small_pictures"]


def test_a_planted_label_leads_the_table(small_pictures: Path, command_line: CommandLine) -> None:
    Path("base/ape/0.png").rename("base/bee/wrong.png")
    ended = command_line(*SETTINGS, "data.test_fraction=0.15", entry=main)
    assert ended.returncode == 0, ended.stderr
    with Path("out/labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["path"] == "base/bee/wrong.png"
    assert (rows[0]["label"], rows[0]["likely_label"]) == ("bee", "ape")
    assert {"labels.html", "cleaned.csv", "splits.csv"} <= {path.name for path in Path("out").iterdir()}
    assert "are suspects (another class is 4 times as probable, or more)" in ended.stdout
    assert "python -m ftexp data=manifest data.file=" in ended.stdout


def test_a_setting_that_cannot_be_is_refused(command_line: CommandLine) -> None:
    ended = command_line("probe.odds=1", entry=main)
    assert ended.returncode == 1
    assert ended.stderr.startswith("ftexp: probe.odds=1.0 is not allowed: it must be above 1")
