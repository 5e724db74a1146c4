"""Handles Ctrl-C and SIGTERM: immediately if nothing can be lost, and after the current step during training."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ftexp.errors import InterruptedRunError

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Handles Ctrl-C and SIGTERM within its ``with``.

    Outside ``deferred``, a signal raises immediately. Inside, the first signal is kept until ``check`` is called, and a
    second one raises immediately. In a thread other than the main one, no signals are handled.
    """

    def __init__(self) -> None:
        self._requested: int | None = None
        self._deferring = False
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Keep a signal for ``check`` within the ``with``; it is raised at the end of the ``with`` at the latest."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        self.check()

    @property
    def requested(self) -> int:
        """The number of the kept signal; 0 if there is none."""
        return self._requested or 0

    def check(self) -> None:
        """Raise if a signal has been received.

        Raises:
            InterruptedRunError: if one has.
        """
        raise_signal(self.requested)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker, which ends with its parent
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self._requested is not None or not self._deferring:
            raise InterruptedRunError(number)
        self._requested = number
        log.warning(
            "%s: finishing the step and saving. Send it again to stop immediately.", signal.Signals(number).name
        )


def raise_signal(number: int) -> None:
    """Raise for a signal that this process has received, or that all ranks have agreed on; 0: there is none.

    Raises:
        InterruptedRunError: if there is one.
    """
    if number:
        raise InterruptedRunError(number)
