from __future__ import annotations

import platform

import pytest
from conftest import CommandLine

from ftexp import __version__
from ftexp.audit.__main__ import main as command
from ftexp.cli.command_line import run_command
from ftexp.lr_find import job
from ftexp.machine.versions import PACKAGES, version_line
from ftexp.models import __main__ as models
from ftexp.sync import main as sync


def test_the_line_has_ours_and_what_it_stands_on() -> None:
    line = version_line()
    assert line.startswith(f"ftexp {__version__} (Python {platform.python_version()}, torch ")
    assert all(package in line for package in PACKAGES)


def test_a_package_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftexp.machine.versions.PACKAGES", ("no-such-package",))
    assert version_line().endswith("no-such-package not installed)")


def test_every_command_shows_it(command_line: CommandLine) -> None:
    entries = [None, command, lambda: run_command(job), lambda: models.main(["--version"]), lambda: sync(["--version"])]
    for entry in entries:
        ended = command_line("--version", **({"entry": entry} if entry else {}))
        assert (ended.returncode, " ".join(ended.stdout.split()), ended.stderr) == (0, version_line(), "")
