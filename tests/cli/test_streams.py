"""Commands do their work even if their output is closed or nobody reads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SPEAKING = """
import logging, os, sys
from ftexp.cli.streams import keep_streams
keep_streams()
keep_streams()
logging.basicConfig(stream=sys.stdout, level="INFO")
with open("file", "w") as file:
    print("to the file", file=file)
    for _ in range(3):
        print("said \\udcff")
        sys.stdout.flush()
        logging.info("logged")
        os.write(1, b"by a C library")
    print("complaint", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "redirection",
    ["", "-u", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "| true", "-u | true", "2>&1 | true", ">/dev/full"],
)
def test_a_closed_stream_is_not_an_error(tmp_path: Path, redirection: str) -> None:
    (tmp_path / "speaking.py").write_text(SPEAKING)
    unbuffered, rest = ("-u", redirection[2:]) if redirection.startswith("-u") else ("", redirection)
    command = f"set -o pipefail; {sys.executable} {unbuffered} speaking.py {rest}"
    source = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=source, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0
    assert (tmp_path / "file").read_text() == "to the file\n", "a file has got the number of a closed stream"
    assert "Error" not in ended.stderr
    if not rest:
        assert ended.stdout.count("said \\udcff") == ended.stdout.count("INFO:root:logged") == 3
    if "2>" not in redirection:
        assert "complaint" in ended.stderr
    full = "ftexp: no more output can be shown here: No space left on device.\n"
    assert ended.stderr.count(full) == (redirection == ">/dev/full")


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-", "| head -n 1"])
def test_a_run_goes_on_to_its_end(tmp_path: Path, redirection: str) -> None:
    settings = "data=imagefolder data.root=pictures data.image_size=32 tracking=none stage=head stage.epochs=1"
    command = f"set -o pipefail; {sys.executable} -m ftexp {settings} audit.on_leak=off hydra.run.dir=run {redirection}"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "finished"
    assert "test accuracy" in (tmp_path / "run" / "ftexp.log").read_text()
