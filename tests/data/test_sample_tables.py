from __future__ import annotations

import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from dataclasses import astuple, replace

import numpy as np
import pytest

from ftexp.data import table
from ftexp.data.places import Container, Part
from ftexp.data.samples import Sample, SampleTable

SAMPLES = [
    Sample("b.jpg", "dog", "train", "ann", "2020", white_level=4095.0),
    Sample("a.jpg", "cat", "test", place=Part(Container("a.tar", "1"), 3, 4)),
    Sample("c.jpg", "dog", "val", pixels=np.ones((2, 2, 3), np.uint8)),
    Sample("ä.jpg", "dog", "train"),
    Sample("d.jpg", "dog"),
]


def same(found: Sequence[Sample], expected: Sequence[Sample]) -> bool:
    return str([astuple(one) for one in found]) == str([astuple(one) for one in expected])


@pytest.mark.parametrize("rows_at_a_time", [1, 2, 4096])
def test_a_table_is_a_sequence_of_its_rows(rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROWS_AT_A_TIME", rows_at_a_time)
    samples = SampleTable.of(iter(SAMPLES))
    assert len(samples) == 5
    assert same(list(samples), SAMPLES)
    assert same([samples[row] for row in range(-5, 5)], [*SAMPLES, *SAMPLES])
    assert same(samples[1:3], SAMPLES[1:3])
    assert same(samples[::-2], SAMPLES[::-2])
    assert same(samples.take([4, 0, 4]), [SAMPLES[4], SAMPLES[0], SAMPLES[4]])
    assert same(pickle.loads(pickle.dumps(samples)), SAMPLES)
    assert list(samples.each("label")) == samples.values("label") == ["dog", "cat", "dog", "dog", "dog"]
    assert SampleTable.of(samples) is samples
    for outside in (5, -6):
        with pytest.raises(IndexError):
            samples[outside]


def test_a_table_without_rows() -> None:
    for empty in (SampleTable.of([]), SampleTable.joined([]), SampleTable.of(SAMPLES)[5:]):
        assert len(empty) == 0
        assert list(empty) == []
        assert list(empty.in_order_of_paths()) == list(empty.of_splits("train")) == []


def test_other_values_in_some_columns() -> None:
    split = ["val", "val", "train", "test", None]
    replaced = SampleTable.of(SAMPLES).replaced(split=split, white_level=[1.0] * 5)
    assert same(replaced, [replace(s, split=to, white_level=1.0) for s, to in zip(SAMPLES, split, strict=True)])


def test_the_order_of_paths_is_that_of_their_letters() -> None:
    ordered = SampleTable.of(SAMPLES).in_order_of_paths()
    assert [s.path for s in ordered] == sorted(s.path for s in SAMPLES) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "ä.jpg"]
    letters = ["\U0001f600", "\uffff", "é", "z", "Z", "a/b", "a.b", "a", ""]
    paths = [first + second for first in letters for second in letters]
    table_of = SampleTable.of(Sample(path, "a") for path in paths)
    assert [sample.path for sample in table_of.in_order_of_paths()] == sorted(paths)


def test_the_samples_of_splits_keep_their_order() -> None:
    samples = SampleTable.of(SAMPLES)
    assert same(samples.of_splits("train"), [SAMPLES[0], SAMPLES[3]])
    assert same(samples.of_splits("val", "train"), [SAMPLES[0], SAMPLES[2], SAMPLES[3]])


COPIED_BY_A_WORKER = """
import os
import psutil
from ftexp.data.samples import Sample, SampleTable

def own_memory():
    return psutil.Process().memory_full_info().uss

def rows():
    return (Sample(f"/data/train/class{row % 100}/{row:012d}.jpg", f"class{row % 100}") for row in range(50_000))

for samples in (list(rows()), SampleTable.of(rows())):
    if (worker := os.fork()) == 0:
        before = own_memory()
        for row in range(len(samples)):
            samples[row].path
        print(round((own_memory() - before) / len(samples)), flush=True)
        os._exit(0)
    os.waitpid(worker, 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="worker processes are not forked")
def test_worker_processes_copy_no_samples_that_they_look_at() -> None:
    done = subprocess.run([sys.executable, "-c", COPIED_BY_A_WORKER], capture_output=True, text=True, check=True)
    of_a_list, of_a_table = map(int, done.stdout.split())
    assert of_a_list > 150, "bytes an image, or there is nothing to avoid"
    assert of_a_table < 50


def test_a_million_images_take_at_most_200_bytes_each() -> None:
    count, folder = 20_000, "/data/photographs of some project/train/labrador retriever"
    tar = Container("/data/shards/train-000.tar", "1")
    for place in (False, True):
        tracemalloc.start()
        samples = SampleTable.of(
            Sample(
                f"{folder}/{row:012d}.jpg",
                f"class{row % 100}",
                "train",
                place=Part(tar, 1000 * row, 900 + row) if place else None,
            )
            for row in range(count)
        )
        used, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(samples[7].path) == 75
        assert used / count < (90 if place else 75), "bytes an image"
        assert peak / count < 250, "while they are listed"


def test_one_field_of_many_rows_is_not_a_list_of_objects() -> None:
    samples = SampleTable.of(Sample(f"folder/{row}.jpg", "dog") for row in range(20_000))
    tracemalloc.start()
    longest = max(map(len, samples.each("path")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert longest == len("folder/10000.jpg")
    assert peak < 20_000 * 50  # a list of texts takes 73 bytes each
