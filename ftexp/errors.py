"""The mistakes a user can make, each with a message that says what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


class UserError(ValueError):
    """The user made a mistake; it is shown as one message, without a traceback."""


class ConfigError(UserError):
    """A setting does not exist, has a value that is not allowed, or contradicts another setting."""


class DataError(UserError):
    """Data cannot be read, or cannot be trained on."""


class LeakError(DataError):
    """The splits share images or groups that they must not share."""


class WeightsError(UserError):
    """Pretrained weights cannot be found or downloaded, or do not fit the network."""


class DeviceError(UserError):
    """This machine does not have the requested device or precision."""


class WorkerError(UserError):
    """A process that loads data has died."""


class RankError(UserError):
    """One of the processes that train together has died."""


class CheckpointError(UserError):
    """A checkpoint cannot be written or read, or a run cannot be resumed."""


class FormatError(CheckpointError):
    """This version of ftexp does not read the format of a run's file; the file itself is not damaged."""


class InterruptedRunError(KeyboardInterrupt):
    """Ctrl-C or SIGTERM was received; raised at a moment at which nothing is lost.

    Attributes:
        signal: the number of the signal.
        saved: whether all that was to be saved is on the disk; not if a second signal came before that.
    """

    def __init__(self, signal: int, *, saved: bool = True) -> None:
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal
        self.saved = saved


class StoppedEarly(BaseException):
    """Carries an error (its cause) through Hydra, which only warns when a callback raises an ``Exception``."""


class PrunedError(Exception):
    """The pruner of a search stopped this run early. The run did not fail, and it has no result."""


class DivergedError(RuntimeError):
    """The training diverged: a training loss, a validation loss or a gradient is NaN or infinite."""


# What the messages of allocators and libraries say that raise a plain RuntimeError when memory runs out.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def out_of_memory(error: BaseException | None) -> BaseException | None:
    """Return the first error in a chain of causes that says that the device or the machine is out of memory."""
    while error is not None:
        named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if named or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def nearest(given: str, allowed: Iterable[str], at_least: float = 0.4) -> str:
    """Suggest the allowed word closest to ``given``.

    Args:
        given: the word that the user wrote.
        allowed: the words that exist.
        at_least: the smallest similarity that counts as close (see ``closest``).

    Returns:
        ``" Did you mean 'adamw'?"`` (with its leading space), or ``""`` when no word is close.
    """
    match = closest(given, allowed, at_least)
    return f" Did you mean '{match}'?" if match else ""


def closest(given: str, allowed: Iterable[str], at_least: float = 0.4) -> str | None:
    """Find the allowed word whose spelling is most similar to ``given``.

    Args:
        given: the word that the user wrote.
        allowed: the words that exist.
        at_least: the smallest similarity that counts as close, from 0 to 1 (difflib's ratio).

    Returns:
        The word; None when none is close.
    """
    match = difflib.get_close_matches(given, list(allowed), n=1, cutoff=at_least)
    return match[0] if match else None


def listed(names: Collection[object], limit: int = 20) -> str:
    """List names for a message: the first ``limit`` of them, each shortened, and how many more there are."""
    shown = ", ".join(shorten(str(name)) for _, name in zip(range(limit), names, strict=False))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def shorten(text: str, limit: int = 120) -> str:
    """Shorten a text, such as a long cell of a table, for a message."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"
