"""The format numbers in a run's files: a file in an unknown format is refused with a message that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from ftexp.errors import FormatError, UserError


def check_format(found: object, newest: int, file: Path) -> None:
    """Refuse a file whose format this version does not read.

    Args:
        found: the format number in the file; None: the file has none and is in format 1.
        newest: the highest format number that this version reads.
        file: the path for the message.

    Raises:
        FormatError: when the number is higher, or is not a format number.
    """
    if found is None or (type(found) is int and 1 <= found <= newest):
        return
    if type(found) is int and found > newest:
        raise FormatError(
            f"{file} has format {found}, and ftexp {version('ftexp')} reads formats up to {newest}: it was written by "
            "a newer version. Update ftexp, or start a new run."
        )
    raise FormatError(f"{file} has the unknown format {found!r}; known are 1 to {newest}. It was not written by ftexp.")


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Name the file in the error when its fields are not those that the ``with`` block reads.

    Raises:
        FormatError: in place of the error that a missing or unknown field causes.
    """
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(
            f"{file} has other fields than ftexp {version('ftexp')} reads ({type(error).__name__}: {error}). Use the "
            "version of ftexp that wrote it (see versions in the run's run.json), or start a new run."
        ) from error
