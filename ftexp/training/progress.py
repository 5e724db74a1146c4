"""What a watcher sees while an epoch runs: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

SECONDS_BETWEEN_DRAWS = 0.25


class Bar(Protocol):
    """The display of one epoch."""

    def advance(self, num_images: int, loss: torch.Tensor) -> None:
        """Count one batch of ``num_images`` images; ``loss`` is its scalar, on any device."""


class Progress:
    """A bar with loss, validation metric, images per second and time left, on stderr.

    Attributes:
        metric: the last validation result to show beside the loss, for example ``"val accuracy 0.93"``.
    """

    def __init__(self, enabled: bool | None = None) -> None:
        """Show a bar; ``enabled=None`` means where stderr is a terminal."""
        self.metric = ""
        self._console = Console(stderr=True)
        shown = sys.stderr.isatty() and not self._console.is_dumb_terminal
        self._enabled = shown if enabled is None else enabled

    @contextmanager
    def epoch(self, description: str, num_batches: int) -> Iterator[Bar]:
        """Show a bar for the duration of an epoch; it leaves no trace, the caller reports the result."""
        if not self._enabled:
            yield _NoBar()
            return
        with RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False, table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True),
            console=self._console,
            auto_refresh=False,  # no thread: the loop draws, and only then is the loss read
            transient=True,
            expand=True,
        ) as display:
            task = display.add_task(description, total=num_batches, status=self.metric)
            display.refresh()
            yield _DrawnBar(display, task, self.metric)


class _NoBar:
    def advance(self, num_images: int, loss: torch.Tensor) -> None:
        pass


class _DrawnBar:
    def __init__(self, display: RichProgress, task: TaskID, metric: str) -> None:
        self._display = display
        self._task = task
        self._metric = metric
        self._num_images = 0
        self._started = time.perf_counter()
        self._drawn = float("-inf")

    def advance(self, num_images: int, loss: torch.Tensor) -> None:
        self._num_images += num_images
        self._display.advance(self._task)
        now = time.perf_counter()
        if now - self._drawn < SECONDS_BETWEEN_DRAWS:
            return
        self._drawn = now
        rate = self._num_images / max(now - self._started, 1e-9)
        # .item() waits for the accelerator: four times a second, not at every step.
        parts = [f"loss {loss.item():.4f}", self._metric, f"{rate:,.0f} images/s"]
        self._display.update(self._task, status="  ".join(part for part in parts if part))
        self._display.refresh()
