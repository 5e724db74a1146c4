"""Log lines that say how far a long pass over many things is, and how long it will take."""

from __future__ import annotations

import logging
import time

# Between two lines: at least so many seconds, and this part of the time that has passed.
SECONDS_BETWEEN = 10.0
PART_BETWEEN = 0.2

log = logging.getLogger(__name__)


class ProgressLines:
    """Logs how far one pass is.

    Args:
        tag: the first word of the line, such as ``audit``.
        done: what happens to the things, such as ``aligned``.
        things: their name in the plural.
        total: how many there are.
    """

    def __init__(self, tag: str, done: str, things: str, total: int) -> None:
        self._tag, self._done, self._things, self._total = tag, done, things, total
        self._started = self._last = time.monotonic()

    def at(self, number: int) -> None:
        """Log that so many are done, if the last line is old enough."""
        now = time.monotonic()
        wait = max(SECONDS_BETWEEN, PART_BETWEEN * (now - self._started))
        if now - self._last < wait or not 0 < number < self._total:
            return
        self._last = now
        left = (now - self._started) / number * (self._total - number)
        text = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
        log.info("%-7s %s %d of %d %s; about %s left", self._tag, self._done, number, self._total, self._things, text)
