from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

from ftexp.data import path_map
from ftexp.data.path_map import PathMap


def test_every_path_has_its_own_value_while_the_table_grows() -> None:
    known = PathMap(4)
    for number in range(5_000):
        assert known.get(f"{number}.jpg") is None
        known.put(f"{number}.jpg", number.to_bytes(4))
    assert len(known) == 5_000
    assert all(known.get(f"{number}.jpg") == number.to_bytes(4) for number in range(5_000))
    assert known.get("5000.jpg") is None


def test_a_new_value_replaces_the_old_one() -> None:
    known = PathMap(2)
    known.put("a", b"xy")
    known.put("a", bytes(2))
    assert known.get("a") == bytes(2)
    assert len(known) == 1


def test_paths_whose_slots_are_the_same_are_kept_apart() -> None:
    known = PathMap(2)
    slots = path_map.FIRST_SLOTS
    of_slot: dict[int, list[str]] = {}
    for number in range(4_000):
        name = str(number)
        of_slot.setdefault(int.from_bytes(path_map._key(name)[:8], "little") % slots, []).append(name)
    at_the_end = [name for slot in (slots - 1, slots - 2) for name in of_slot.get(slot, [])]
    assert len(at_the_end) > 2, "they go on at the beginning of the table"
    for number, name in enumerate(at_the_end):
        known.put(name, number.to_bytes(2))
    assert [known.get(name) for name in at_the_end] == [number.to_bytes(2) for number in range(len(at_the_end))]


def test_threads_and_other_processes_can_use_it() -> None:
    known = PathMap(4)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: known.put(str(number), number.to_bytes(4)), range(3_000)))
        found = list(pool.map(lambda number: known.get(str(number)), range(3_000)))
    assert found == [number.to_bytes(4) for number in range(3_000)]
    sent = pickle.loads(pickle.dumps(known))
    assert sent.get("2999") == (2999).to_bytes(4)
    sent.put("more", bytes(4))
    assert len(sent) == 3_001


def test_names_that_are_not_unicode_are_paths_too() -> None:
    known = PathMap(1)
    known.put("caf\udce9.jpg", b"x")
    assert known.get("caf\udce9.jpg") == b"x"
    assert known.get("caf\udce8.jpg") is None
