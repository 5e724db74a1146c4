"""Labels that name several classes at once, which ftexp does not do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from ftexp.errors import DataError, shorten

SEVERAL_LABELS = (
    "Several labels for an image (multi-label) are not supported: a run tells which one class an image has. Give every"
    " image one label, or make a table for each label, with yes and no as its classes."
)


def refuse_several_labels(source: str, labels: Iterable[str]) -> None:
    """Refuse labels such as ``[cat, dog]`` and ``cat|dog``.

    A bar joins labels where a part of one is found in another, or where only some labels hold a bar: ``n01|tench`` and
    ``n02|shark`` are names. A comma or a semicolon joins labels where every part is found in another label.

    Args:
        source: what to call the place of the labels.

    Raises:
        DataError: with the first of them.
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
