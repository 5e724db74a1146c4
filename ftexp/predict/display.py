"""What a watcher of ``python -m ftexp.predict`` sees: rows, how far it is, and what came of it."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from ftexp.inference.predictions import Prediction
from ftexp.predict.layout import Layout, printable

# Rows from which the widths of the columns are taken, before the first of them is shown.
ROWS_FOR_WIDTHS = 32
SECONDS_BETWEEN_DRAWS = 0.25
SECONDS_BETWEEN_LINES = 10.0
WIDEST_LABEL = 32
# Files that cannot be read, named at the end.
MAX_NAMED = 5


class Rows(Protocol):
    """Shows predictions on standard output."""

    def show(self, prediction: Prediction) -> None:
        """Show the row of one image."""

    def close(self) -> None:
        """Show what is not shown yet."""


class PlainRows:
    """For a pipe or a file: path, label, probability and so on, with tabs between them; an error is the last."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def show(self, prediction: Prediction) -> None:
        """See ``Rows``."""
        print("\t".join("" if value is None else printable(str(value)) for value in self._layout.row(prediction)))

    def close(self) -> None:
        """See ``Rows``."""


class AlignedRows:
    """For a terminal: paths as short as there is room for, and columns below each other."""

    def __init__(self, layout: Layout, width: int) -> None:
        self._layout = layout
        self._width = width
        self._waiting: list[Prediction] = []
        self._path_width = 0
        longest = max(cell_len(printable(name)) for name in layout.classes)
        self._label_width = min(longest, WIDEST_LABEL)

    def show(self, prediction: Prediction) -> None:
        """See ``Rows``."""
        self._waiting.append(prediction)
        if self._path_width or len(self._waiting) == ROWS_FOR_WIDTHS:
            self.close()

    def close(self) -> None:
        """See ``Rows``."""
        if self._waiting and not self._path_width:
            places = min(self._layout.top_k, len(self._layout.classes))
            room = self._width - places * (self._label_width + len("  0.1234  "))
            longest = max(cell_len(_short(one.path)) for one in self._waiting)
            self._path_width = max(16, min(longest, room))
        for one in self._waiting:
            path = _tail(_short(one.path), self._path_width)
            print(f"{set_cell_size(path, self._path_width)}  {self._answer(one)}".rstrip())
        self._waiting = []

    def _answer(self, one: Prediction) -> str:
        if one.error is not None:
            return f"not classified: {printable(one.error)}"
        sure = self._layout.label(one) is not None
        pairs = [f"{set_cell_size(printable(name), self._label_width)}  {p:.4f}" for name, p in one.top]
        return "  ".join(pairs) + ("" if sure else "  below the threshold")


def rows_on_stdout(layout: Layout) -> Rows:
    """Aligned on a terminal, plain anywhere else."""
    return AlignedRows(layout, Console().width) if sys.stdout.isatty() else PlainRows(layout)


class Counter:
    """Counts what is done; on standard error a bar where that is a terminal, a line now and then where it is not.

    Args:
        total: images there are; None: not known.
        done: images that an earlier call has done.
        shown: False where the rows themselves are on the terminal.

    Attributes:
        before: images that an earlier call has done.
        done: images that this call has done, ``unreadable`` and ``uncertain`` ones among them.
        named: the first files that could not be read, each with the reason.
    """

    def __init__(self, total: int | None, done: int = 0, *, shown: bool = True) -> None:
        self._total, self.before = total, done
        self.done = self.unreadable = self.uncertain = 0
        self.named: list[tuple[str, str]] = []
        self._began = self._drawn = time.monotonic()
        console = Console(stderr=True)
        bar = shown and sys.stderr.isatty() and not console.is_dumb_terminal
        self._says_lines = shown and not bar
        self._bar = _bar(console) if bar else None
        self._task = self._bar.add_task("predict", total=total, completed=done, rate="") if self._bar else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def count(self, prediction: Prediction, label: str | None) -> None:
        """Count one image; ``label``: its answer."""
        self.done += 1
        if prediction.error is not None:
            self.unreadable += 1
            if self.unreadable <= MAX_NAMED:
                self.named.append((prediction.path or "", prediction.error))
        self.uncertain += prediction.error is None and label is None
        now = time.monotonic()
        if self._bar and self._task is not None and now - self._drawn > SECONDS_BETWEEN_DRAWS:
            self._drawn = now
            self._bar.update(self._task, completed=self.before + self.done, rate=self._rate())
            self._bar.refresh()
        elif self._says_lines and now - self._drawn > SECONDS_BETWEEN_LINES:
            self._drawn = now
            of = f" of {self._total:,}" if self._total is not None else ""
            print(f"predict {self.before + self.done:,}{of} images, {self._rate()}", file=sys.stderr)

    def summary(self) -> str:
        """What came of it, in a line."""
        parts = [f"{self.done:,} image{'s' * (self.done != 1)} in {time.monotonic() - self._began:.1f} s"]
        if self.done:
            parts.append(self._rate())
        if self.before:
            parts.append(f"{self.before:,} before")
        if self.uncertain:
            parts.append(f"{self.uncertain:,} below the threshold")
        if self.unreadable:
            parts.append(f"{self.unreadable:,} that cannot be read")
        return ", ".join(parts)

    def _rate(self) -> str:
        return f"{self.done / max(time.monotonic() - self._began, 1e-9):,.1f} images/s"


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False, table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True),
        console=console,
        auto_refresh=False,
        transient=True,
        expand=True,
    )


def _short(path: str | None) -> str:
    """A path as it is, or from the working folder where that is shorter."""
    if path is None:
        return ""
    inside = os.path.relpath(path) if os.path.isabs(path) else path
    return printable(inside if len(inside) < len(path) and not inside.startswith("..") else path)


def _tail(path: str, width: int) -> str:
    """The end of a path, which tells files apart."""
    if cell_len(path) <= width:
        return path
    signs: list[str] = []
    room = width - 1
    for sign in reversed(path):
        room -= cell_len(sign)
        if room < 0:
            break
        signs.append(sign)
    return "…" + "".join(reversed(signs))
