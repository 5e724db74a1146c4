"""benchmarks.gpu: parts are kept, cut and continued, and what is missing is named; a dry run on the CPU."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gpu import outcomes, parts
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.outcomes import collect, run_part
from benchmarks.gpu.parts import DRY, OF_SIDE, Part, Setting
from benchmarks.gpu.run_tests import read_junit
from benchmarks.processes import interpreter
from benchmarks.results import append_rows, read_rows
from benchmarks.side_by_side import OTHERS, other_command

ROW = "| speed | n |\n| --- | --- |\n| 3 | 5 |\n"


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path, None, Path(sys.executable), DRY)


def part_of(program: str, *modules: str) -> Part:
    """A part that runs a Python program with the file of the rows as its argument."""
    return Part("a test", lambda _, rows: [[sys.executable, "-c", program, str(rows)]], modules)


def writes(what: str) -> str:
    return f"import sys; open(sys.argv[1], 'a').write({what!r})"


def test_a_part_that_is_done_does_not_run_again(setting: Setting) -> None:
    part = part_of(writes(f"# Benchmarks\n\n## Speed\n\n{ROW}"))
    assert [run_part("speed", part, setting, 60) for _ in range(2)] == ["done", "done"]
    assert read_rows(setting.out / "speed.md") == {"Speed": [{"speed": "3", "n": "5"}]}
    assert (setting.out / "speed.log").read_text().count("$ ") == 1, "one process"
    other = replace(setting, sizes=replace(DRY, steps=7))
    assert run_part("speed", part, other, 60) == "done"
    assert (setting.out / "speed.log").read_text().count("$ ") == 2, "other sizes are measured"


def test_a_part_that_takes_too_long_is_cut_with_its_processes_and_then_continued(setting: Setting) -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(77.125)'])"
    started = time.monotonic()
    assert run_part("slow", part_of(child), setting, 0.7) == "cut"
    assert time.monotonic() - started < 10
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "time.sleep(77.125)" not in listed
    assert collect({"slow": "cut"}, setting, setting.out / "results.md") == 1
    assert not (setting.out / "results.md").exists(), "no rows before all parts are there"
    assert run_part("slow", part_of("pass"), setting, 60) == "done"


def test_a_part_that_fails_says_why_and_runs_again(setting: Setting) -> None:
    assert run_part("broken", part_of("raise OSError('the device is gone')"), setting, 60) == "failed"
    assert "OSError: the device is gone" in json.loads((setting.out / "broken.json").read_text())["reason"]
    assert run_part("broken", part_of("pass"), setting, 60) == "done"


def test_a_part_whose_modules_are_missing_is_left_out_by_name(
    setting: Setting, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = part_of("raise SystemExit('it must not run')", "json", "no_such_module")
    assert run_part("there", part, setting, 60) == "left out"
    assert "left out, 0 s: it lacks no_such_module" in capsys.readouterr().out
    monkeypatch.setattr(outcomes, "PARTS", {"there": part})
    monkeypatch.setattr(parts, "OF_SIDE", {"other": ("no_such_framework",)})
    assert collect({"there": "left out"}, setting, setting.out / "results.md") == 0
    assert "other was left out, it lacks no_such_framework" in capsys.readouterr().out


def test_all_other_frameworks_are_known_and_have_a_program() -> None:
    assert tuple(OF_SIDE) == OTHERS
    arguments = Namespace(
        python="python", root="images", stage="full", epochs=1, image_size=32, workers=1, device="cpu"
    )
    assert all(Path(other_command(side, arguments, 0)[1]).exists() for side in OTHERS)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "results.md"
    append_rows("One", [{"a": 1, "b": "x, y"}], file)
    append_rows("Two", [{"c": "-"}], file)
    append_rows("One", [{"a": 2, "b": "z"}], file)
    assert read_rows(file) == {"One": [{"a": "1", "b": "x, y"}, {"a": "2", "b": "z"}], "Two": [{"c": "-"}]}


def test_the_report_of_pytest_is_counted(tmp_path: Path) -> None:
    cases = '<testcase name="good" time="3.2"/><testcase name="bad"><failure/></testcase>'
    skipped = '<testcase name="none"><skipped/></testcase>'
    (tmp_path / "junit.xml").write_text(f"<testsuites><testsuite>{cases}{skipped}</testsuite></testsuites>")
    counted = {"passed": 1, "failed": "bad", "skipped": 1, "longest, s": "3"}
    assert read_junit(tmp_path / "junit.xml") == counted


def test_the_list_names_what_a_machine_lacks(
    setting: Setting, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu.__main__.PARTS", {"one": part_of("", "no_such_module"), "two": part_of("")})
    assert main(["--list", "--out", str(setting.out)]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["one", "a", "test;", "left", "out,", "it", "lacks", "no_such_module"],
        ["two", "a", "test"],
    ]


def test_an_interpreter_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "own-python"
    link.symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert interpreter("own-python") == interpreter("./own-python") == link, "a link stays one"
    with pytest.raises(SystemExit):
        main(["--list", "--python", "python-that-is-not-there"])


def test_being_terminated_keeps_what_was_measured_and_stops_the_part(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = part_of("import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(77.5)")
    monkeypatch.setattr("benchmarks.gpu.__main__.PARTS", {"slow": child})
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        main(["--dry", "--out", str(setting.out), "--parts", "slow"])
    assert json.loads((setting.out / "slow.json").read_text())["reason"] == "interrupted"
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "time.sleep(77.5)" not in listed
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_dry_run_that_is_interrupted_continues(tmp_path: Path) -> None:
    chosen = ["first_step", "tests", "throughput", "cached", "precision", "decode", "profile"]
    given = ["--dry", "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results.md"), "--parts", *chosen]
    command = [sys.executable, "-m", "benchmarks.gpu", *given]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    first = tmp_path / "out" / "first_step.json"
    deadline = time.monotonic() + 240
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)  # a shell lets programs in its background ignore SIGINT
    process.communicate(timeout=60)
    assert process.returncode != 0
    written = first.stat().st_mtime_ns
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "first_step     done before" in ended.stdout
    assert first.stat().st_mtime_ns == written
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert kept["parts"] == dict.fromkeys(chosen, "done")
    assert set(read_rows(tmp_path / "results.md")) == set(kept["sections"])
    assert all(rows for rows in kept["sections"].values())
