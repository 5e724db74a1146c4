"""The mistakes a user can make, each with a message that says what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


class UserError(ValueError):
    """A mistake of the user's: shown as one message, without a traceback."""


class ConfigError(UserError):
    """A setting that does not exist, has no allowed value, or contradicts another."""


class DataError(UserError):
    """Data that cannot be read, or that cannot be trained on."""


class LeakError(DataError):
    """Splits that share what they must not share."""


class WeightsError(UserError):
    """Pretrained weights that cannot be had, or do not fit the network."""


class DeviceError(UserError):
    """A device or a precision that this machine does not have."""


class WorkerError(UserError):
    """A process that loads data has died."""


class RankError(UserError):
    """One of the processes that train together has died."""


class CheckpointError(UserError):
    """A checkpoint that cannot be written or read, or a run that cannot be gone on with."""


class FormatError(CheckpointError):
    """A file of a run whose format this version of ftexp does not read; nothing is wrong with the file."""


class InterruptedRunError(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, honoured at a moment at which nothing is lost.

    Attributes:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal


class PrunedError(Exception):
    """A search has seen enough of this run: no failure, and no result either."""


class DivergedError(RuntimeError):
    """The training diverged: the loss, on whatever samples, or a gradient is NaN or infinite."""


# How allocators and libraries that have no error class of their own for it say that memory ran out.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def out_of_memory(error: BaseException | None) -> BaseException | None:
    """The one among an error and its causes that says that a device or the machine has no more memory, if any does."""
    while error is not None:
        named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if named or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def nearest(given: str, allowed: Iterable[str], at_least: float = 0.4) -> str:
    """The allowed word closest to ``given`` as a hint, or nothing when none is close.

    Args:
        at_least: as of ``closest``.

    Returns:
        ``" Did you mean 'adamw'?"`` (with its leading space), or ``""``.
    """
    match = closest(given, allowed, at_least)
    return f" Did you mean '{match}'?" if match else ""


def closest(given: str, allowed: Iterable[str], at_least: float = 0.4) -> str | None:
    """The allowed word that is spelt most like ``given``; None when none is close.

    Args:
        at_least: the likeness that counts as close, from 0 to 1 (difflib's ratio).
    """
    match = difflib.get_close_matches(given, list(allowed), n=1, cutoff=at_least)
    return match[0] if match else None


def listed(names: Collection[object], limit: int = 20) -> str:
    """Names for a message: the first of them, each shortened, and how many more there are."""
    shown = ", ".join(shorten(str(name)) for _, name in zip(range(limit), names, strict=False))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def shorten(text: str, limit: int = 120) -> str:
    """A text for a message, which a whole cell of a table may be too long for."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"
