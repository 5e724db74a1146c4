"""The README's way from a folder of pictures to a served model, as it stands there, in a fresh folder."""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw_pictures
from served_models import ask_the_served_model

pytestmark = pytest.mark.slow

README = Path(__file__).parents[1] / "README.md"


def labels(file: Path) -> dict[str, str]:
    with file.open(newline="") as rows:
        return {row["path"]: row["label"] for row in csv.DictReader(rows)}


def test_seven_commands(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="an extra")
    text = README.read_text()
    (block,) = re.findall(r"in seven commands;.*?\n\n((?:    .*\n)+)", text)
    commands = [shlex.split(line) for line in block.splitlines()]
    assert len(commands) == 7
    draw_pictures(tmp_path / "pictures")
    for python, *arguments in commands[:-1]:
        assert python == "python"
        ended = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
        )
        assert ended.returncode == 0, f"{arguments}: {ended.stdout}{ended.stderr}"
    of_run, of_file = (labels(tmp_path / name) for name in ("predictions.csv", "predictions_of_the_file.csv"))
    assert len(of_run) == 24
    assert of_run == of_file
    picture = tmp_path / "pictures" / "dark" / "0.jpg"
    served = ask_the_served_model(tmp_path, commands[-1][: commands[-1].index("--port")], picture)
    assert served["label"] == of_run[str(picture.relative_to(tmp_path))]
    assert {"p(dark)", "p(light)"} <= served.keys()
