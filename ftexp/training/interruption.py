"""Ctrl-C and SIGTERM: at once where nothing can be lost, after the step where there is something to save."""

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
    """Listens to Ctrl-C and SIGTERM within its ``with``.

    Outside of ``deferred`` they raise at once. Inside, the first one waits to be asked for with ``check``; a second
    one raises at once there, too. In a thread other than the main one nothing is listened to.
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
        """Let a signal wait for ``check`` within the ``with``, at whose end it is honoured at the latest."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        self.check()

    @property
    def requested(self) -> int:
        """The signal that waits to be honoured; 0: none."""
        return self._requested or 0

    def check(self) -> None:
        """Honour a signal that waits.

        Raises:
            InterruptedRunError: if there is one.
        """
        if self._requested is not None:
            raise InterruptedRunError(self._requested)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker, forked with this handler: it ends when its owner does
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self._requested is not None or not self._deferring:
            raise InterruptedRunError(number)
        self._requested = number
        log.warning("%s: finishing the step and saving; once more to stop at once.", signal.Signals(number).name)
