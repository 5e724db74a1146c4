"""Unifies the spelling of class and group names that look the same, and refuses names that are easily confused."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal

from ftexp.data.samples import SampleTable, sorted_naturally, unified
from ftexp.errors import DataError, listed

log = logging.getLogger(__name__)

NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?([eE]\+?[0-9]{1,2})?")


def unify_names(samples: SampleTable) -> SampleTable:
    """Give names that look the same one spelling: composed Unicode (NFC), without invisible characters.

    macOS writes ``é`` as two characters, other systems as one. Spreadsheets and web pages leave spaces around names,
    unusual spaces in them, and characters without width.

    Returns:
        The samples in the same order. Classes that were spelt in several ways are one class, with a warning.

    Raises:
        DataError: when class names differ only in upper and lower case, or are the same number. Single letters may
            differ in case, as in handwriting.
    """
    label_of, group_of = samples.values("label"), samples.values("group")
    labels = set(label_of)
    spelling = {name: unified(name) for name in labels | set(filter(None, group_of))}
    for plain, count in Counter(spelling[label] for label in labels).items():
        if count > 1:
            log.warning("Class %r is spelt in %d ways that look the same; they count as one class.", plain, count)
    _refuse_other_case(label_of, {spelling[label] for label in labels})
    _refuse_same_number(label_of, {spelling[label] for label in labels})
    for names in _equal_but_for_case({spelling[group] for group in filter(None, set(group_of))}):
        log.warning("The groups %s differ only in upper and lower case; they count as several groups.", listed(names))
    if all(name == plain for name, plain in spelling.items()):
        return samples
    return samples.replaced(
        label=[spelling[label] for label in label_of],
        group=[spelling[group] if group else None for group in group_of],
    )


def _refuse_other_case(label_of: Sequence[str], labels: set[str]) -> None:
    for names in _equal_but_for_case(label for label in labels if len(label) > 1):
        raise DataError(
            f"The classes {_counted(label_of, names)} differ only in upper and lower case. If they are one class, give"
            " it one name; if they are not, give them names that differ otherwise."
        )


def _refuse_same_number(label_of: Sequence[str], labels: set[str]) -> None:
    """Refuse ``1`` and ``1.0``: programs write integers as floats if some are missing. Only warn of ``7`` and ``007``,
    which can be two codes.
    """
    together: dict[Decimal, list[str]] = {}
    for name in sorted_naturally(label for label in labels if NUMBER.fullmatch(label)):
        together.setdefault(Decimal(name), []).append(name)
    for names in together.values():
        if len(names) == 1:
            continue
        if all(name.isdecimal() for name in names):
            log.warning(
                "The classes %s are the same number except for leading zeros; they count as several.", listed(names)
            )
            continue
        raise DataError(
            f"The classes {_counted(label_of, names)} are the same number. If they are one class, give it one name; if"
            " they are not, give them names that differ otherwise."
        )


def _counted(label_of: Sequence[str], names: Sequence[str]) -> str:
    counts = Counter(unified(label) for label in label_of)
    return listed([f"{name!r} ({counts[name]} images)" for name in names])


def _equal_but_for_case(names: Iterable[str]) -> list[list[str]]:
    together: dict[str, list[str]] = {}
    for name in sorted_naturally(names):
        together.setdefault(name.casefold(), []).append(name)
    return [alike for alike in together.values() if len(alike) > 1]
