"""What Python itself costs a process with torch in it: seconds to import, and seconds to end."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Import with no garbage collected, and have later collections pass by what was imported.

    Importing torch and timm makes nearly a million objects that stay. To walk through them again and again is a
    quarter of the time that it takes, and 0.4 s of every full collection after it.
    """
    if not gc.isenabled():
        yield
        return
    known = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
            atexit.register(gc.unfreeze)  # extension modules look for leaks when the process ends
        gc.enable()


def end_process() -> None:
    """End with exit code 0, exit handlers run and output written, but without taking all objects apart one by one.

    mypy ends so, too. Where another thread is at work or a debugger looks on, Python is left to end as usual.
    """
    mine = threading.current_thread()
    if sys.gettrace() or sys.getprofile() or any(not t.daemon for t in threading.enumerate() if t is not mine):
        return
    atexit._run_exitfuncs()
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
