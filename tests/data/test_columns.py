from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ftexp.data.columns import Column, Integers, Objects, Paths, Repeating, Texts
from ftexp.data.places import Container, InMemory, Part, WholeUrl
from ftexp.data.record_column import Records

TAR = Container("a.tar", "1")
PARTS = [Part(TAR, 512, 2**40), Part(Container("b.tar", "2"), 0, 7), Part(TAR, 2048, 1)]
MIXED = [WholeUrl("http://x/1.jpg"), None, PARTS[0]]

COLUMNS: list[tuple[type[Column], Sequence[Any]]] = [
    (Texts, ["b/ö.jpg", "", "a" * 300, "b/ö.jpg"]),
    (Paths, ["/a/b/ö.jpg", "c.jpg", "", "/a/b/d.jpg", "/e", "a\\b.jpg", "//"]),
    (Integers, [2**40, -1, 0]),
    (Repeating, ["dog", None, "dog", "cat", 0.5]),
    (Objects, [None, None]),
    (Objects, [None, np.zeros(2), "x"]),
    (Records, [None, None, None]),
    (Records, PARTS),
    (Records, MIXED),
    (Records, [InMemory(b"x"), InMemory(b"y")]),
]


@pytest.mark.parametrize(("kind", "values"), COLUMNS)
def test_a_column_gives_back_its_values(kind: type[Column], values: Sequence[Any]) -> None:
    values = list(values)
    for column in (kind.of(values), pickle.loads(pickle.dumps(kind.of(values)))):
        assert len(column) == len(values)
        assert str(column.as_list()) == str(values) == str([column[row] for row in range(len(values))])
        assert str(column.take(np.array([1, 1, 0])).as_list()) == str([values[1], values[1], values[0]])
        assert str(column.take(slice(1, 99)).as_list()) == str(values[1:])
        assert column.take(slice(0, 0)).as_list() == column.take(np.array([], np.int64)).as_list() == []
    assert str(kind.joined([kind.of(values[:1]), kind.of([]), kind.of(values[1:])]).as_list()) == str(values)


def test_a_value_that_repeats_is_kept_once() -> None:
    first, second = Repeating.of(["cat", "dog", "cat"]), Repeating.of(["dog", "bee"])
    joined = Repeating.joined([first, second])
    assert joined.values == ("cat", "dog", "bee")
    assert joined.numbers.tolist() == [0, 1, 0, 1, 2]


def test_a_folder_of_many_paths_is_kept_once() -> None:
    column = Paths.joined([Paths.of(["/a/b/1.jpg", "/a/2.jpg"]), Paths.of(["/a/b/3.jpg"])])
    assert column.folders.values == ("/a/b/", "/a/")
    assert column.names.as_list() == ["1.jpg", "2.jpg", "3.jpg"]


def test_places_of_one_kind_are_columns_and_their_container_is_kept_once() -> None:
    column = Records.joined([Records.of(PARTS[:1]), Records.of(PARTS[1:])])
    containers, offsets, sizes = column.fields
    assert isinstance(containers, Repeating)
    assert containers.values == (TAR, PARTS[1].container)
    assert isinstance(offsets, Integers)
    assert isinstance(sizes, Integers)
    assert sizes.as_list() == [2**40, 7, 1]
    assert column.as_list() == PARTS


def test_parts_with_other_places_are_joined_as_they_are() -> None:
    assert Records.joined([Records.of(PARTS), Records.of([None]), Records.of(MIXED)]).as_list() == [
        *PARTS,
        None,
        *MIXED,
    ]


@dataclass(frozen=True)
class Marked:
    mark: int | str


def test_fields_that_are_integers_only_in_one_part_are_joined() -> None:
    values = [Marked(1), Marked("1"), Marked(2)]
    joined = Records.joined([Records.of(values[:1]), Records.of(values[1:])])
    assert str(joined.as_list()) == str(values)
