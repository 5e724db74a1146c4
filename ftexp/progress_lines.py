"""Log lines that say how far a long pass over many things is, and how long it will take."""

from __future__ import annotations

import logging
import time

# Between two lines: at least so many seconds, and this part of the time that has passed.
SECONDS_BETWEEN = 10.0
PART_BETWEEN = 0.2

log = logging.getLogger(__name__)


class SpacedLines:
    """Logs lines about something long, those of them whose time has come.

    Args:
        tag: the first word of the line, such as ``head``.
    """

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self.started = self._last = time.monotonic()

    def say(self, text: str, *values: object) -> None:
        """Log the text with its values if the last line, or the beginning, is long enough ago."""
        now = time.monotonic()
        if now - self._last >= max(SECONDS_BETWEEN, PART_BETWEEN * (now - self.started)):
            self._last = now
            log.info("%-7s " + text, self._tag, *values)


class ProgressLines:
    """Logs how far one pass is.

    Args:
        tag: the first word of the line, such as ``audit``.
        done: what happens to the things, such as ``aligned``.
        things: their name in the plural.
        total: how many there are.
    """

    def __init__(self, tag: str, done: str, things: str, total: int) -> None:
        self._lines, self._done, self._things, self._total = SpacedLines(tag), done, things, total

    def at(self, number: int) -> None:
        """Log that so many are done, if the last line is old enough."""
        if 0 < number < self._total:
            left = (time.monotonic() - self._lines.started) / number * (self._total - number)
            text = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
            self._lines.say("%s %d of %d %s; about %s left", self._done, number, self._total, self._things, text)
