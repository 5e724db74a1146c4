"""Runs the tests marked gpu and gives a row with what they said; of those that ended, if it is terminated.

python -m benchmarks.gpu.run_tests [--device cuda]
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.processes import PROJECT, terminated_as_interrupted
from benchmarks.results import append_rows, hardware, machine, versions

SECTION = "Tests on a GPU"
# Each test compiles or starts a run, mostly on one core; more of them at once wait for each other's compilers.
PROCESSES = 3
# Seconds: one that hangs may not take the others' time; and until pytest has ended after it was interrupted.
LONGEST, GRACE = 240, 15
INTERRUPTED = 2  # pytest's exit status


def read_junit(file: Path) -> dict[str, object]:
    """The counts, and the names of those that failed."""
    # One that was interrupted has no name.
    cases = [case for case in ElementTree.parse(file).getroot().findall(".//testcase") if case.get("name")]
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    longest = max((float(case.get("time", "0")) for case in cases), default=0.0)
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "failed": ", ".join(str(case.get("name")) for case in failed) or 0,
        "skipped": len(skipped),
        "longest, s": f"{longest:.0f}",
    }


def run_to_the_end(command: list[str]) -> int:
    """The exit status; a pytest that is interrupted reports what has ended."""
    ours = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell starts background commands with SIGINT ignored
    process = subprocess.Popen(command, cwd=PROJECT)
    signal.signal(signal.SIGINT, ours)
    with terminated_as_interrupted():
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait(GRACE)
            return INTERRUPTED


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "tests/gpu", f"--junitxml={report}", "-v", "-rA"]
        command += ["-p", "no:cacheprovider", f"--timeout={LONGEST}"]
        command += ["-n", str(PROCESSES)] if arguments.device == "cuda" else []
        code = run_to_the_end(command)
        counts = read_junit(report)
    row = {
        "date": date.today().isoformat(),
        "device": hardware(arguments.device),
        "ended": "some" if code == INTERRUPTED else "all",
        **counts,
        "machine": machine(),
        "versions": versions(),
    }
    append_rows(SECTION, [row], *([arguments.results] if arguments.results else []))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
