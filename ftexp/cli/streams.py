"""Standard output and errors that may be closed, or whose reader may leave, without harm to a run."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def keep_streams() -> None:
    """See to it that whatever is printed or logged from now on raises no error; to be called first in a command.

    A stream that is closed (``>&-``) is opened on the null device: else the next file that is opened would take its
    number, and get what C libraries print. One whose reader leaves (``| head``), whose disk is full or whose terminal
    is gone is written to no more, and the command goes on to its end: what a run computes is in its folder.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)  # takes the lowest number that is free
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _forgiving(sys.stdout, 1), _forgiving(sys.stderr, 2)
    for handler in logging.getLogger().handlers:  # of a worker of a launcher's, which has set up its log by now
        for old, new in zip(before, (sys.stdout, sys.stderr), strict=True):
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)


def _forgiving(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:  # it was closed when Python started
        buffer = io.BufferedWriter(_Forgiving(number, "w", closefd=False))
        return io.TextIOWrapper(buffer, "utf-8", "backslashreplace", line_buffering=True)
    if not isinstance(stream, io.TextIOWrapper):  # another program's, such as pytest's
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)  # python -u has no buffer in between
    if type(raw) is not io.FileIO or raw.closed or raw.fileno() != number:
        return stream
    stream.flush()
    forgiving = _Forgiving(number, "w", closefd=False)
    return io.TextIOWrapper(
        forgiving if stream.buffer is raw else io.BufferedWriter(forgiving),
        stream.encoding,
        "backslashreplace",  # for names of files that the terminal's encoding does not have
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Forgiving(io.FileIO):
    """Writes to a file descriptor until that fails, and to the null device from then on."""

    def write(self, content: ReadableBuffer, /) -> int:
        """All or nothing of it is shown."""
        try:
            return super().write(content)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if error.errno != errno.EPIPE and self.fileno() == 1:
                print(f"ftexp: nothing more can be shown here: {error.strerror}.", file=sys.stderr)
            return memoryview(content).nbytes
