"""The progress bar of an epoch, which is shown on a terminal and in a notebook only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

SECONDS_BETWEEN_DRAWS = 0.25

# Draws a bar: batches done, and what stands beside it.
Draw = Callable[[int, str], None]


class Bar(Protocol):
    """The display of one epoch."""

    def advance(self, num_images: int, loss: torch.Tensor) -> None:
        """Advance by one batch of ``num_images`` images; ``loss`` is a scalar on any device."""


class Progress:
    """A bar on stderr, or in a cell of a notebook, with loss, validation metric, images per second and time left.

    Attributes:
        metric: the last validation result, which is shown beside the loss, such as ``"val accuracy 0.93"``.
    """

    def __init__(self, enabled: bool | None = None) -> None:
        """Show a bar if ``enabled``; with None, if stderr is a terminal, and in a notebook."""
        self.metric = ""
        self._console = Console(stderr=True)
        self._in_notebook = self._console.is_jupyter
        shown = self._in_notebook or (sys.stderr.isatty() and not self._console.is_dumb_terminal)
        self._enabled = shown if enabled is None else enabled

    @contextmanager
    def epoch(self, description: str, num_batches: int) -> Iterator[Bar]:
        """Show a bar while an epoch runs; it disappears afterwards."""
        if not self._enabled:
            yield _NoBar()
            return
        shown = (
            _in_notebook(description, num_batches) if self._in_notebook else self._on_terminal(description, num_batches)
        )
        with shown as draw:
            draw(0, self.metric)
            yield _DrawnBar(draw, self.metric)

    @contextmanager
    def _on_terminal(self, description: str, num_batches: int) -> Iterator[Draw]:
        with RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False, table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True),
            console=self._console,
            auto_refresh=False,  # no thread: the loop draws, and reads the loss only then
            transient=True,
            expand=True,
        ) as display:
            task = display.add_task(description, total=num_batches, status=self.metric)

            def draw(done: int, status: str) -> None:
                display.update(task, completed=done, status=status)
                display.refresh()

            yield draw


@contextmanager
def _in_notebook(description: str, num_batches: int) -> Iterator[Draw]:
    """Draw with the ``progress`` element of HTML, which needs no widgets to be installed."""
    from IPython.display import display

    handle = display({"text/plain": description}, raw=True, display_id=True)

    def draw(done: int, status: str) -> None:
        text = f"{description}  {done}/{num_batches}  {status}"
        bar = f'<progress value="{done}" max="{num_batches}"></progress>'
        handle.update({"text/plain": text, "text/html": f"<div>{bar} {escape(text)}</div>"}, raw=True)

    yield draw
    handle.update({"text/plain": "", "text/html": ""}, raw=True)


class _NoBar:
    def advance(self, num_images: int, loss: torch.Tensor) -> None:
        pass


class _DrawnBar:
    def __init__(self, draw: Draw, metric: str) -> None:
        self._draw = draw
        self._metric = metric
        self._num_batches = 0
        self._num_images = 0
        self._started = time.perf_counter()
        self._drawn = float("-inf")

    def advance(self, num_images: int, loss: torch.Tensor) -> None:
        self._num_images += num_images
        self._num_batches += 1
        now = time.perf_counter()
        if now - self._drawn < SECONDS_BETWEEN_DRAWS:
            return
        self._drawn = now
        rate = self._num_images / max(now - self._started, 1e-9)
        # .item() waits for the device, so it is called four times a second, not at every step.
        parts = [f"loss {loss.item():.4f}", self._metric, f"{rate:,.0f} images/s"]
        self._draw(self._num_batches, "  ".join(part for part in parts if part))
