"""What settings mean: the comments above the fields of the schema, and those at the head of the files in ``conf/``."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Explained:
    """Settings of one dataclass that one comment explains; the text is empty if there is none."""

    names: tuple[str, ...]
    text: str


@cache
def explained_fields(kind: type, alike: tuple[type, ...] = ()) -> tuple[Explained, ...]:
    """The fields of a dataclass in their order, those that it inherits first.

    A comment explains the fields in the lines below it, up to the next comment or an empty line. A field that is
    defined again, with another default, stays where it was.

    Args:
        kind: the dataclass.
        alike: dataclasses whose comments also hold for fields of the same name that have none here.
    """
    elsewhere = [one for other in alike if other is not kind for one in explained_fields(other) if one.text]
    found: list[Explained] = []
    for one in _all_fields(kind):
        left = one.names
        for same in () if one.text else elsewhere:
            found += [Explained(names, same.text)] if (names := tuple(n for n in same.names if n in left)) else []
            left = tuple(name for name in left if name not in same.names)
        found += [Explained(left, one.text)] if left else []
    return tuple(found)


def _all_fields(kind: type) -> list[Explained]:
    found: list[Explained] = []
    for owner in reversed(kind.__mro__):
        if is_dataclass(owner):
            known = {name for one in found for name in one.names}
            new = ((tuple(name for name in one.names if name not in known), one.text) for one in _own_fields(owner))
            found += [Explained(names, text) for names, text in new if names]
    return found


def purpose(kind: type) -> str:
    """What a dataclass is for: its docstring in one line."""
    return " ".join((kind.__doc__ or "").replace("``", "").split())


def head_comment(file: Path) -> str:
    """The comment at the head of a file in ``conf/``, in one line; empty if there is none."""
    lines: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or (line == "#" and lines):
            break
        if not line.startswith("# @"):  # a directive of Hydra
            lines.append(line)
    return _joined(lines)


def _own_fields(owner: type) -> list[Explained]:
    source = textwrap.dedent(inspect.getsource(owner))
    lines, (definition,) = source.splitlines(), ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    names = {field.name for field in fields(owner)}
    found: list[Explained] = []
    after = -1  # the number of the line after the last field
    for node in definition.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.target.id not in names:
            continue
        first = node.lineno - 1
        while lines[first - 1].lstrip().startswith("#"):
            first -= 1
        comment = lines[first : node.lineno - 1]
        if not comment and found and after == first:
            found[-1] = Explained((*found[-1].names, node.target.id), found[-1].text)
        else:
            found.append(Explained((node.target.id,), _joined(comment)))
        after = node.end_lineno or node.lineno
    return found


def _joined(comment: list[str]) -> str:
    return " ".join(line.strip().lstrip("#").strip() for line in comment).strip()
