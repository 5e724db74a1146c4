"""Makes standard output and standard error robust: a run continues if they are closed or their reader exits."""

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
    """Make sure that printing and logging raise no errors from now on. Call it first in a command.

    A stream that is closed (``>&-``) is opened on the null device; otherwise the next file that is opened would get
    its file descriptor and what C libraries print to it. When the reader of a stream exits (``| head``), its disk is
    full or its terminal is closed, later output is discarded and the command continues: a run writes its results to
    its folder.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)  # takes the lowest number that is free
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _forgiving(sys.stdout, 1), _forgiving(sys.stderr, 2)
    for handler in logging.getLogger().handlers:  # in a worker of a launcher, logging is set up already
        for old, new in zip(before, (sys.stdout, sys.stderr), strict=True):
            if isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)


def _forgiving(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:  # it was closed when Python started
        buffer = io.BufferedWriter(_Forgiving(number, "w", closefd=False))
        return io.TextIOWrapper(buffer, "utf-8", "backslashreplace", line_buffering=True)
    if not isinstance(stream, io.TextIOWrapper):  # replaced by another program, such as pytest
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)  # python -u has no buffer in between
    if type(raw) is not io.FileIO or raw.closed or raw.fileno() != number:
        return stream
    stream.flush()
    forgiving = _Forgiving(number, "w", closefd=False)
    return io.TextIOWrapper(
        forgiving if stream.buffer is raw else io.BufferedWriter(forgiving),
        stream.encoding,
        "backslashreplace",  # for file names that the terminal's encoding cannot represent
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Forgiving(io.FileIO):
    """Writes to a file descriptor until that fails, and to the null device from then on."""

    def write(self, content: ReadableBuffer, /) -> int:
        """Write the content, or discard it and everything after it."""
        try:
            return super().write(content)
        except OSError as error:
            null_device = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null_device, self.fileno())
            os.close(null_device)
            if error.errno != errno.EPIPE and self.fileno() == 1:
                print(f"ftexp: no more output can be shown here: {error.strerror}.", file=sys.stderr)
            return memoryview(content).nbytes
