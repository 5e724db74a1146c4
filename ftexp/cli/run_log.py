"""The log file of a run, which ends when its disk is full; the run continues."""

from __future__ import annotations

import logging
import os
import sys


class RunLog(logging.FileHandler):
    """Stops writing after the first failure and reports it once; Python's handler prints a traceback for every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Report that a line could not be written, and discard all later ones; ``logging`` calls this method."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError) or self.stream is None:
            super().handleError(record)
            return
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, self.stream.fileno())  # writing the rest of its buffer would fail again
        os.close(null_device)
        print(f"ftexp: {self.baseFilename} ends here: {error.strerror}.", file=sys.stderr)
