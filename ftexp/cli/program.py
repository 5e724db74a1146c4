"""Set-up and error handling of the commands with ordinary flags, such as ``python -m ftexp.models``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable

from ftexp.cli.messages import explain
from ftexp.cli.streams import keep_streams
from ftexp.config.uri import hide_credentials
from ftexp.errors import InterruptedRunError
from ftexp.files.disk import WrittenPaths, explain_disk
from ftexp.machine.torchrun import is_first_to_report
from ftexp.machine.versions import version_line


def make_parser(name: str, what: str, example: str) -> argparse.ArgumentParser:
    """Make the argument parser of ``python -m ftexp.NAME``.

    Args:
        name: the name of the command.
        what: what the command does, in a sentence or two.
        example: an example of its arguments, which ``--help`` shows at its end.
    """
    command = f"python -m ftexp.{name}"
    parser = argparse.ArgumentParser(prog=command, description=what, epilog=f"Example: {command} {example}")
    parser.add_argument("--version", action="version", version=version_line())
    return parser


def end_program(task: Callable[[], int], written: WrittenPaths | None = None) -> int:
    """Run the task of a command, and report an error as one message on standard error.

    Args:
        task: does the work and returns the exit code.
        written: name -> path of what the task writes to; a message about a full disk uses these names.

    Returns:
        The exit code: that of the task, 1 after an error, 130 after Ctrl-C. With ``HYDRA_FULL_ERROR=1``, mistakes of
        the user are also shown with their traceback.
    """
    keep_streams()
    _show_warnings()
    try:
        return task()
    except InterruptedRunError as stopped:
        return _stopped("interrupted.", 128 + stopped.signal)
    except KeyboardInterrupt:
        return _stopped("interrupted.", 130)
    except Exception as error:
        wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
        message = None if wants_traceback else explain(error) or explain_disk(error, written or {})
        if message is not None:
            return _stopped(message, 1)
        print(hide_credentials(traceback.format_exc()), file=sys.stderr)
        return 1


def _show_warnings() -> None:
    """Print the warnings of ftexp on standard error, unless the program has set up logging already."""
    logger = logging.getLogger("ftexp")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("ftexp: %(message)s"))
        logger.addHandler(handler)


def _stopped(message: str, code: int) -> int:
    if is_first_to_report():
        print(f"ftexp: {hide_credentials(message)}", file=sys.stderr)
    return code
