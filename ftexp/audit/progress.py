"""Says every few seconds how far a long part of the audit is, and how long it will take."""

from __future__ import annotations

import logging
import time

SECONDS_BETWEEN = 10.0

log = logging.getLogger(__name__)


class Progress:
    """Logs how far one part of the audit is.

    Args:
        done: what happens to the things, such as ``aligned``.
        things: their name in the plural.
        total: how many there are.
    """

    def __init__(self, done: str, things: str, total: int) -> None:
        self._done, self._things, self._total = done, things, total
        self._started = self._last = time.monotonic()

    def at(self, number: int) -> None:
        """Log that so many are done, if the last line is some seconds old."""
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN or not 0 < number < self._total:
            return
        self._last = now
        left = (now - self._started) / number * (self._total - number)
        text = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
        log.info("audit   %s %d of %d %s; about %s left", self._done, number, self._total, self._things, text)
