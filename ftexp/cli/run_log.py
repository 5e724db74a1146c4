"""The log file of a run, which ends where its disk is full; the run goes on."""

from __future__ import annotations

import logging
import os
import sys


class RunLog(logging.FileHandler):
    """Writes until that fails, says so once, and writes no more; Python's own would show a traceback for every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """What logging calls when a line could not be written."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError) or self.stream is None:
            super().handleError(record)
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())  # what waits in its buffer would fail again
        os.close(nowhere)
        print(f"ftexp: {self.baseFilename} ends here: {error.strerror}.", file=sys.stderr)
