import io
import re
import sys
from types import SimpleNamespace

import pytest
import torch

from ftexp.training import progress as module
from ftexp.training.progress import Progress


class CountedLoss:
    """Stands in for a tensor and counts how often it is read."""

    reads = 0

    def item(self):
        CountedLoss.reads += 1
        return 0.25


class Terminal(io.StringIO):
    def isatty(self):
        return True


def open_terminal(monkeypatch, kind="xterm-256color"):
    """stderr as a terminal of 100 columns whose text can be read."""
    # In the test itself: pytest puts its own stderr back between a fixture and its test.
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setenv("COLUMNS", "100")
    return screen


def plain(screen):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())


def test_nothing_is_shown_and_no_loss_read_without_a_terminal(capfd):
    CountedLoss.reads = 0
    with Progress().epoch("partial  1/10", 3) as bar:
        for _ in range(3):
            bar.advance(32, CountedLoss())
    assert capfd.readouterr() == ("", "")
    assert CountedLoss.reads == 0


def test_a_dumb_terminal_gets_no_bar(monkeypatch):
    terminal = open_terminal(monkeypatch, "dumb")
    with Progress().epoch("partial  1/10", 1) as bar:
        bar.advance(32, torch.tensor(0.5))
    assert terminal.getvalue() == ""


def test_the_bar_shows_loss_metric_rate_and_leaves_no_trace(monkeypatch):
    terminal = open_terminal(monkeypatch)
    clock = iter([0.0, 0.5, 1.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    progress = Progress()
    progress.metric = "val accuracy 0.93"
    with progress.epoch("[partial]  2/10", 4) as bar:
        bar.advance(32, torch.tensor(0.5))
        bar.advance(32, torch.tensor(0.123456))
    shown = plain(terminal)
    assert "[partial]  2/10" in shown
    assert "2/4 loss 0.1235  val accuracy 0.93  64 images/s" in shown
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased
    assert all(len(line) <= 100 for line in re.split(r"[\r\n]", shown))


def test_the_loss_is_read_four_times_a_second_at_most(monkeypatch):
    open_terminal(monkeypatch)
    CountedLoss.reads = 0
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    with Progress().epoch("partial  1/10", 1000) as bar:
        for _ in range(1000):
            now[0] += 0.001
            bar.advance(1, CountedLoss())
    assert 3 <= CountedLoss.reads <= 4


def test_an_exception_passes_through_the_bar(monkeypatch):
    open_terminal(monkeypatch)
    with pytest.raises(KeyError, match="inside"), Progress().epoch("partial  1/10", 1):
        raise KeyError("inside")


class Cell:
    """Stands for the output of a notebook's cell."""

    def __init__(self):
        self.shown = []

    def display(self, data, raw, display_id):
        assert raw
        assert display_id
        self.shown.append(data)
        return self

    def update(self, data, raw):
        assert raw
        self.shown.append(data)


def test_a_notebook_gets_a_bar_of_html_that_needs_no_widgets(monkeypatch):
    cell = Cell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=cell))
    monkeypatch.setitem(sys.modules, "IPython.display", cell)
    monkeypatch.setattr(module, "Console", lambda **_: SimpleNamespace(is_jupyter=True, is_dumb_terminal=False))
    progress = Progress()
    progress.metric = "val <b> 0.93"
    with progress.epoch("head  1/2", 4) as bar:
        bar.advance(32, torch.tensor(0.5))
    drawn = [data["text/html"] for data in cell.shown[1:]]
    assert '<progress value="1" max="4"></progress>' in drawn[1]
    assert "head  1/2  1/4  loss 0.5000  val &lt;b&gt; 0.93" in drawn[1]
    assert drawn[-1] == ""
