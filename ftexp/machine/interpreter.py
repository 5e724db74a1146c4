"""Reduces the seconds that a process with torch needs to import its modules and to exit."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ftexp.machine.deferred_dynamo import dynamo_imported_when_used

# Seconds that Python and Hydra may take before the configuration is composed, on a slow machine.
MOST_TO_COMPOSE = 5.0


@contextmanager
def quick_imports() -> Iterator[None]:
    """Within the ``with``, importing torch and what is built on it takes as few seconds as it can."""
    with garbage_left_alone(), dynamo_imported_when_used():
        yield


@contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Switch garbage collection off during imports, and exclude what was imported from later collections.

    Importing torch and timm makes nearly a million permanent objects. Traversing them again and again takes a quarter
    of the import time, and 0.4 s of every full collection afterwards.
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
            atexit.register(gc.unfreeze)  # extension modules check for leaks when the process ends
        gc.enable()


def command_began() -> float:
    """When the command of this process began, by ``time.monotonic``; call it when the configuration is composed.

    That is when the process began, unless it has done something else before: Hydra takes seconds at most.
    """
    import psutil  # a run needs it, and --help does not

    age = time.time() - psutil.Process().create_time()
    return time.monotonic() - min(max(age, 0.0), MOST_TO_COMPOSE)


def run_program(main: Callable[[], int | None]) -> None:
    """Call the main function of a program, then end the process with the code that it returns or exits with."""
    try:
        code = main() or 0
    except SystemExit as stopped:
        if isinstance(stopped.code, str):
            raise
        code = stopped.code or 0
    end_process(code)
    sys.exit(code)


def end_process(code: int = 0) -> None:
    """Exit after running exit handlers and flushing output, but without destroying every object.

    mypy does the same. If another thread is running or a debugger is attached, Python exits as usual.
    """
    mine = threading.current_thread()
    if sys.gettrace() or sys.getprofile() or any(not t.daemon for t in threading.enumerate() if t is not mine):
        return
    atexit._run_exitfuncs()
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
