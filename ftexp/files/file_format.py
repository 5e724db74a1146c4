"""The format numbers in a run's files: a file of another version of ftexp is refused by name, not by a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from ftexp.errors import FormatError, UserError


def check_format(found: object, newest: int, file: Path) -> None:
    """Refuse a file whose format this version does not read.

    Args:
        found: the file's number; None: it was written before there were numbers, in the layout of format 1.
        newest: the highest number that this version reads.

    Raises:
        FormatError: when the number is higher, or none that was ever written.
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
    """Say which file it was when its fields are not those that the ``with`` block reads.

    Raises:
        FormatError: in the place of the error that a missing or an additional field leads to.
    """
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(
            f"{file} has other fields than ftexp {version('ftexp')} reads ({type(error).__name__}: {error}). Go on "
            "with the version of ftexp that wrote it (see versions in the run's run.json), or start a new run."
        ) from error
