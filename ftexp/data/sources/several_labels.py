"""Refuses labels that name several classes at once (multi-label), which ftexp does not support."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from ftexp.errors import DataError, shorten

SEVERAL_LABELS = (
    "Several labels for an image (multi-label) are not supported: every image has exactly one class. Give every image"
    " one label, or make a table for each label, with yes and no as its classes."
)


def refuse_several_labels(source: str, labels: Iterable[str]) -> None:
    """Refuse labels such as ``[cat, dog]`` and ``cat|dog``.

    A label with bars counts as several labels if one of its parts occurs in another label, or if some labels have no
    bar; ``n01|tench`` and ``n02|shark`` are names. A label with commas or semicolons counts as several labels if each
    of its parts occurs in another label.

    Args:
        source: names the file and column of the labels, for messages.
        labels: the labels of all samples.

    Raises:
        DataError: naming the first such label.
    """
    names = sorted(set(labels))
    for name in names:
        if re.fullmatch(r"\[.*\]|\{.*\}", name):
            raise _refusal(source, name)
    for separator in "|;,":
        parts = {name: _parts(name, separator) for name in names}
        joined = [name for name in names if len(parts[name]) > 1]
        found = Counter(part for name in names for part in set(parts[name]))
        for name in joined:
            shared = [found[part] > 1 for part in parts[name]]
            if any(shared) or len(joined) < len(names) if separator == "|" else all(shared):
                raise _refusal(source, name)


def _parts(name: str, separator: str) -> list[str]:
    return [part.strip() for part in name.split(separator) if part.strip()]


def _refusal(source: str, name: str) -> DataError:
    return DataError(f"{source}: the label {shorten(name)!r} names several classes. {SEVERAL_LABELS}")
