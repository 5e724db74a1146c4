from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from ftexp.data import path_map
from ftexp.data.path_map import PathMap


def test_every_path_has_its_own_value_while_the_table_grows() -> None:
    known = PathMap(4)
    for number in range(12_000):
        assert known.get(f"{number}.jpg") is None
        known.put(f"{number}.jpg", number.to_bytes(4))
    assert len(known._new) < 12_000, "else nothing is in the array"
    assert all(known.get(f"{number}.jpg") == number.to_bytes(4) for number in range(12_000))
    assert known.get("12000.jpg") is None


@pytest.mark.parametrize("least", [0, 1, 100])
def test_a_new_value_replaces_the_old_one(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_map, "LEAST_NEW", least)
    known = PathMap(2)
    for value in (b"xy", b"zz", bytes(2)):
        for path in ("a", "b", "c"):
            known.put(path, value)
        assert [known.get(path) for path in ("a", "b", "c")] == [value] * 3
    assert len(known._rows) <= 3


def test_digests_that_begin_alike_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_map, "LEAST_NEW", 0)
    monkeypatch.setattr(path_map, "key_of", lambda path: bytes(8) + path.encode().rjust(8))
    known = PathMap(1)
    for path in "cab":
        known.put(path, path.encode())
    known.put("a", b"A")
    assert [known.get(path) for path in "abcd"] == [b"A", b"b", b"c", None]


def test_threads_and_other_processes_can_use_it() -> None:
    known = PathMap(4)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: known.put(str(number), number.to_bytes(4)), range(6_000)))
        found = list(pool.map(lambda number: known.get(str(number)), range(6_000)))
    assert found == [number.to_bytes(4) for number in range(6_000)]
    sent = pickle.loads(pickle.dumps(known))
    assert sent.get("0") == bytes(4)
    sent.put("more", bytes(4))
    assert (sent.get("more"), known.get("more")) == (bytes(4), None)


def test_names_that_are_not_unicode_are_paths_too() -> None:
    known = PathMap(1)
    known.put("caf\udce9.jpg", b"x")
    assert known.get("caf\udce9.jpg") == b"x"
    assert known.get("caf\udce8.jpg") is None
