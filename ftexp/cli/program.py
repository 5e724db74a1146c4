"""Commands with ordinary flags, such as ``python -m ftexp.predict``: how they are set up, and how they end."""

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
from ftexp.machine.torchrun import may_speak
from ftexp.machine.versions import version_line


def make_parser(name: str, what: str, example: str) -> argparse.ArgumentParser:
    """The parser of ``python -m ftexp.NAME``.

    Args:
        name: of the command.
        what: it does, in a sentence or two.
        example: of its arguments, for the end of ``--help``.
    """
    command = f"python -m ftexp.{name}"
    parser = argparse.ArgumentParser(prog=command, description=what, epilog=f"Example: {command} {example}")
    parser.add_argument("--version", action="version", version=version_line())
    return parser


def end_program(task: Callable[[], int], written: WrittenPaths | None = None) -> int:
    """Do what a command does, and turn whatever goes wrong into one message on standard error.

    Args:
        task: returns the exit code.
        written: what it writes to, by the names that a message about a full disk gives them.

    Returns:
        The exit code: that of the task, 1 for a mistake of the user's or a full disk, 130 after Ctrl-C. With
        ``HYDRA_FULL_ERROR=1`` a mistake is shown with its traceback.
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
    """Show what ftexp warns of, once, on standard error; a program that has set up a log keeps its own."""
    logger = logging.getLogger("ftexp")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("ftexp: %(message)s"))
        logger.addHandler(handler)


def _stopped(message: str, code: int) -> int:
    if may_speak():
        print(f"ftexp: {hide_credentials(message)}", file=sys.stderr)
    return code
