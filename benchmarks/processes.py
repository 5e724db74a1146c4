"""Measures whole processes one after the other, with a log from which an interrupted comparison continues."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
# What ftexp tells glibc by itself: to keep the memory that tensors give back.
KEEP_FREED_MEMORY = "glibc.malloc.mmap_threshold=2147483647:glibc.malloc.trim_threshold=2147483647"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Time, memory and accuracy of one process.

    Attributes:
        accuracy: the best on the validation set; None if nothing was trained.
        images_per_second: of training without validation, per epoch.
        peak_mib: largest resident memory of the process and of each of its children.
    """

    seconds: float
    accuracy: float | None
    images_per_second: tuple[float, ...]
    peak_mib: float


@dataclass(frozen=True, slots=True)
class Reached:
    """The figures that a program reports: see ``Outcome``."""

    accuracy: float | None = None
    images_per_second: tuple[float, ...] = ()


def interpreter(given: str) -> Path:
    """The interpreter that a command names, by its path or by its name; a link, as of an environment, stays one.

    Raises:
        ArgumentTypeError: if there is no such program.
    """
    found = shutil.which(given)
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no program {given}")
    return Path(found).absolute()


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Within the ``with``, SIGTERM, as ``timeout`` sends it, ends this process as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_process(
    command: Sequence[str], folder: Path, read: Callable[[str], Reached], variables: dict[str, str] | None = None
) -> Outcome:
    """Run a program to its end in a folder; ``read`` parses its figures from its output.

    Raises:
        RuntimeError: when it fails, with the end of its error output.
    """
    started = time.perf_counter()
    with (folder / "stdout").open("w+") as stdout, (folder / "stderr").open("w+") as stderr:
        process = subprocess.Popen(command, cwd=folder, stdout=stdout, stderr=stderr, env=environment(variables))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        stdout.seek(0)
        stderr.seek(0)
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{stderr.read()[-2000:]}")
        reached = read(stdout.read())
    return Outcome(seconds, reached.accuracy, reached.images_per_second, usage.ru_maxrss / 2**10)


def environment(variables: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of all programs; byte code may be written, so that sources are compiled only once."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join(filter(None, (str(PROJECT), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, **(variables or {})}


def last_line(printed: str) -> Reached:
    """Parse the last line printed by a program in ``benchmarks/frameworks``."""
    reached = json.loads(printed.strip().splitlines()[-1])
    return Reached(float(reached["accuracy"]), tuple(reached["images_per_second"]))


def read_run(run: Path) -> Reached:
    """Read the figures from the folder of a run of ftexp."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rates = tuple(float(row["images_per_second"]) for row in rows)
    return Reached(max(float(row["val_accuracy"]) for row in rows), rates)


def take_turns(
    sides: Sequence[str], rounds: int, measure: Callable[[str, int], Outcome], show: Callable[[Outcome], str]
) -> dict[str, list[Outcome]]:
    """Measure all programs in turn, A B A B: an outcome of each per round, with the number of the round as the seed.

    A program that fails is left out from then on, with its message; the first one, which the others are compared with,
    ends the comparison.
    """
    outcomes: dict[str, list[Outcome]] = {side: [] for side in sides}
    for seed in range(rounds):
        for side in list(outcomes):
            try:
                outcomes[side].append(measure(side, seed))
            except RuntimeError as error:
                if side == sides[0]:
                    raise
                del outcomes[side]
                print(f"round {seed + 1}  {side:12} is left out: {error}", flush=True)
            else:
                print(f"round {seed + 1}  {side:12} {show(outcomes[side][-1])}", flush=True)
    return outcomes


class Log:
    """Saves outcomes as lines of a file, so that nothing is measured twice.

    Args:
        file: the file; None: nothing is saved.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known: dict[str, Outcome] = {}
        if file is not None and file.exists():
            for line in file.read_text().splitlines():
                entry = json.loads(line)
                rates = tuple(entry["outcome"].pop("images_per_second"))
                self._known[entry["key"]] = Outcome(**entry["outcome"], images_per_second=rates)

    def once(self, key: str, measure: Callable[[], Outcome]) -> Outcome:
        """The outcome with a key; it is measured if the log does not have it."""
        if key not in self._known:
            self._known[key] = outcome = measure()
            if self._file is not None:
                with self._file.open("a") as file:
                    file.write(json.dumps({"key": key, "outcome": asdict(outcome)}) + "\n")
        return self._known[key]
