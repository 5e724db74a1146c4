"""Runs a part of ``benchmarks.gpu`` once, keeps what it gave, and collects the rows of all parts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.gpu.parts import PARTS, Part, Setting, lacking, sides_here
from benchmarks.processes import environment
from benchmarks.results import append_rows, read_rows

DONE, LEFT_OUT, CUT, FAILED = "done", "left out", "cut", "failed"
# Seconds in which a command that is cut may end by itself.
GRACE = 20


def run_part(name: str, part: Part, setting: Setting, seconds: float) -> str:
    """Run a part that is missing, for at most so many seconds, and keep how it ended in ``NAME.json``.

    What a part has of commands that ended well is kept: the next call goes on with the first that did not.

    Args:
        name: of the part.
        part: the part.
        setting: where and how it runs.
        seconds: after which it is cut.

    Returns:
        ``done``, ``left out``, ``cut`` or ``failed``.
    """
    state = setting.out / f"{name}.json"
    before = json.loads(state.read_text()) if state.exists() else {}
    if before.get("sizes") != str(setting.sizes):
        before = {}
    if before.get("state") == DONE:
        print(f"{name:14} done before, {before['seconds']:.0f} s", flush=True)
        return DONE
    if missing := lacking(part, setting):
        return _keep(state, setting, LEFT_OUT, [], 0.0, f"it lacks {', '.join(missing)}")
    ended: list[str] = before.get("commands", [])
    rows = setting.out / f"{name}.md"
    if not ended:
        rows.unlink(missing_ok=True)
    spent, started = before.get("seconds", 0.0), time.monotonic()
    for command in part.commands(setting, rows):
        if " ".join(command) in ended:
            continue
        # Kept beforehand, for a machine that is taken away in between.
        now = time.monotonic() - started
        _write(state, setting, CUT, ended, spent + now, "interrupted")
        reason = _run(command, setting.out / f"{name}.log", seconds - now)
        if reason is not None:
            how = CUT if reason.startswith("it took") else FAILED
            return _keep(state, setting, how, ended, spent + time.monotonic() - started, reason)
        ended.append(" ".join(command))
    return _keep(state, setting, DONE, ended, spent + time.monotonic() - started, "")


def _run(command: list[str], log: Path, seconds: float) -> str | None:
    """Why the command did not end well, or None; its processes are stopped with it."""
    with log.open("a") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment(), start_new_session=True)
        try:
            code = process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return "it took too long"
        finally:
            _stop(process)
    return None if code == 0 else f"exit status {code}: {_last_lines(log)}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a command that still runs, which gets a while to write down what it has, and its processes."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_lines(log: Path) -> str:
    return " | ".join(line.strip() for line in log.read_text(errors="replace").splitlines()[-3:])[-300:]


def _keep(state: Path, setting: Setting, how: str, ended: list[str], seconds: float, reason: str) -> str:
    _write(state, setting, how, ended, seconds, reason)
    print(f"{state.stem:14} {how}, {seconds:.0f} s{reason and ': ' + reason}", flush=True)
    return how


def _write(state: Path, setting: Setting, how: str, ended: list[str], seconds: float, reason: str) -> None:
    kept = {"state": how, "seconds": seconds, "reason": reason, "sizes": str(setting.sizes), "commands": ended}
    state.write_text(json.dumps(kept, indent=2) + "\n")


def collect(ended: dict[str, str], setting: Setting, results: Path | None) -> int:
    """Write ``results.json``, and append all rows to the results once every part is done or left out.

    Args:
        ended: name of a part -> how it ended now.
        setting: where the parts ran.
        results: the file of the results; None: benchmarks/results.md.

    Returns:
        The exit status: 1 if a part failed or was cut.
    """
    sections: dict[str, list[dict[str, str]]] = {}
    for name in PARTS:
        rows = setting.out / f"{name}.md"
        for section, found in (read_rows(rows) if rows.exists() else {}).items():
            sections.setdefault(section, []).extend(found)
    absent = {side: missing for side, missing in sides_here(setting).items() if missing}
    kept = {"parts": ended, "frameworks that are absent": absent, "sections": sections}
    (setting.out / "results.json").write_text(json.dumps(kept, indent=2) + "\n")
    bad = [name for name, state in ended.items() if state in (CUT, FAILED)]
    if bad:
        print(f"{', '.join(bad)}: not complete; the same command continues. {setting.out}", flush=True)
        return 1
    for section, found in sections.items():
        append_rows(section, found, *([results] if results else []))
    for side, missing in absent.items():
        print(f"{side} was left out, it lacks {', '.join(missing)}")
    print(f"{sum(map(len, sections.values()))} rows: {setting.out / 'results.json'}")
    return 0
