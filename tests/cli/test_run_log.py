from __future__ import annotations

import logging
from pathlib import Path

import pytest
from conftest import CommandLine

from ftexp.cli.run_log import RunLog


def test_a_full_disk_is_reported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = RunLog("/dev/full", encoding="utf-8")
    logger = logging.Logger("test")
    logger.addHandler(handler)
    for _ in range(3):
        logger.info("line")
    handler.close()
    assert capsys.readouterr().err == "ftexp: /dev/full ends here: No space left on device.\n"


def test_a_mistake_in_a_line_is_shown_as_ever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("test")
    logger.addHandler(RunLog(tmp_path / "log"))
    logger.info("%d", "no number")
    logger.info("line")
    assert "--- Logging error ---" in capsys.readouterr().err
    assert (tmp_path / "log").read_text() == "line\n"


def test_a_run_continues_without_its_log(tmp_path: Path, command_line: CommandLine) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ftexp.log").symlink_to("/dev/full")
    ended = command_line("data=imagefolder", "data.root=nowhere", "hydra.run.dir=run", "runtime.device=cpu")
    assert ended.returncode == 1
    assert "nowhere" in ended.stderr
    assert "Logging error" not in ended.stderr
