"""benchmarks.gpu: parts are kept, cut and continued, and what is missing is named; a dry run on the CPU."""

from __future__ import annotations

import json
import os
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
from benchmarks.gpu.carry import prepare
from benchmarks.gpu.outcomes import collect, run_part
from benchmarks.gpu.parts import DRY, OF_SIDE, PARTS, Part, Setting
from benchmarks.gpu.run_tests import INTERRUPTED, read_junit, run_to_the_end
from benchmarks.processes import interpreter
from benchmarks.results import append_rows, read_rows
from benchmarks.side_by_side import OTHERS, other_command
from benchmarks.throughput import SECTION

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


def test_a_part_goes_on_with_the_command_that_did_not_end_well(setting: Setting) -> None:
    def commands(_: Setting, rows: Path) -> list[list[str]]:
        once = "import pathlib, sys; seen = pathlib.Path(sys.argv[1] + '.seen'); known = seen.exists(); seen.touch()\n"
        programs = writes(f"# Benchmarks\n\n## Speed\n\n{ROW}"), once + "sys.exit(0 if known else 3)"
        return [[sys.executable, "-c", program, str(rows)] for program in programs]

    part = Part("a test", commands)
    assert [run_part("two", part, setting, 60) for _ in range(3)] == ["failed", "done", "done"]
    assert (setting.out / "two.log").read_text().count("$ ") == 3, "the first command ran once, the second twice"
    assert read_rows(setting.out / "two.md") == {"Speed": [{"speed": "3", "n": "5"}]}
    assert run_part("two", part, replace(setting, sizes=replace(DRY, steps=7)), 60) == "done"
    assert read_rows(setting.out / "two.md") == {"Speed": [{"speed": "3", "n": "5"}]}, "rows of other sizes are gone"


def test_a_machine_that_is_taken_away_loses_no_more_than_the_command_in_progress(setting: Setting) -> None:
    state = setting.out / "taken.json"
    shows = part_of(f"print(open({str(state)!r}).read())")
    assert run_part("taken", shows, setting, 60) == "done"
    assert '"state": "cut"' in (setting.out / "taken.log").read_text(), "as it is kept meanwhile"


def test_a_part_that_is_cut_may_write_down_what_it_has(setting: Setting) -> None:
    what = f"# Benchmarks\n\n## Speed\n\n{ROW}"
    waits = f"import time\ntry:\n    time.sleep(77.375)\nfinally:\n    {writes(what)}"
    terminated = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
    assert run_part("slow", part_of(terminated + waits), setting, 0.7) == "cut"
    assert read_rows(setting.out / "slow.md") == {"Speed": [{"speed": "3", "n": "5"}]}


@pytest.mark.parametrize(
    "processes", [[], pytest.param(["-n", "1"], marks=pytest.mark.slow)], ids=["one process", "workers"]
)
def test_tests_that_ended_before_the_cut_are_reported(tmp_path: Path, processes: list[str]) -> None:
    (tmp_path / "test_two.py").write_text(
        "import os, signal, time\n"
        "def test_first(): pass\n"
        f"def test_second(): os.kill({os.getpid()}, signal.SIGTERM); time.sleep(77.625)\n"
    )
    report = tmp_path / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, str(tmp_path), f"--junitxml={report}"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    try:
        assert run_to_the_end([*command, *processes]) == INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    assert (read_junit(report)["passed"], read_junit(report)["failed"]) == (1, 0)


def test_the_network_that_is_farthest_behind_its_step_is_profiled(setting: Setting) -> None:
    def profiled() -> str:
        (command,) = PARTS["profile"].commands(setting, setting.out / "profile.md")
        return command[command.index("--model") + 1]

    assert profiled() == DRY.models[0], "before anything is measured"
    for part, model, shares in (("throughput", "one", (1.0, 0.97)), ("throughput_2", "two", (1.0, 0.93))):
        measured = zip(("step", "ftexp", "timm"), (*shares, 0.2), strict=True)
        rows = [{"model": model, "side": side, "of the step's": f"{share:.3f} (0 to 1)"} for side, share in measured]
        append_rows(SECTION, rows, setting.out / f"{part}.md")
    assert profiled() == "two"


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


def test_packages_of_ftexp_that_a_bare_machine_lacks_are_named(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parts.lacking(part_of("", "json"), setting) == []
    there = parts.metadata.distributions
    gone = "hydra-core", "opencv-python-headless", "mlflow"
    monkeypatch.setattr(parts.metadata, "distributions", lambda name: [] if name in gone else there(name=name))
    assert parts.lacking(part_of("", "no_such_module"), setting) == [*gone[:2], "no_such_module"], "none imports MLflow"


def test_what_is_carried_has_the_versions_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr("benchmarks.gpu.carry.subprocess.run", lambda command, check: commands.append(command))
    prepare(tmp_path / "carried", ["hydra-core", "finetuning-scheduler", "no-such-package"], "3.12", None)
    assert commands[0][-3:] == ["hydra-core==1.4.0rc3", "finetuning-scheduler==2.14.1", "no-such-package"]


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


def test_rows_go_to_the_table_with_their_columns_whatever_else_is_in_the_section(tmp_path: Path) -> None:
    file = tmp_path / "results.md"
    file.write_text("# Benchmarks\n\n## One\n\nWords.\n\n| a |\n| --- |\n| 1 |\n\nMore words.\n\n## Two\n\nNone.\n")
    append_rows("One", [{"a": 2}, {"a": 3}], file)
    append_rows("One", [{"a": 4, "b": 5}], file)
    append_rows("Two", [{"a": 6}], file)
    one = "Words.\n\n| a |\n| --- |\n| 1 |\n| 2 |\n| 3 |\n\nMore words.\n\n| a | b |\n| --- | --- |\n| 4 | 5 |\n"
    two = "None.\n\n| a |\n| --- |\n| 6 |\n"
    assert file.read_text() == f"# Benchmarks\n\n## One\n\n{one}\n## Two\n\n{two}"


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
    while not (first.exists() and '"done"' in first.read_text()) and time.monotonic() < deadline:
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
    assert {row["side"] for row in kept["sections"][SECTION]} >= {"step", "ftexp", "ftexp_auto", "chapter"}
    assert set(read_rows(tmp_path / "results.md")) == set(kept["sections"])
    assert all(rows for rows in kept["sections"].values())
