from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from ftexp.data.samples import Sample
from ftexp.data.splitting.test_split import TestSplit

SAMPLES = [Sample("a.jpg", "a", "test"), Sample("b.jpg", "b", "test", "ann", "2020")]


def test_counts_without_handing_out() -> None:
    split = TestSplit(SAMPLES)
    assert len(split) == split.num_samples == 2
    assert repr(split) == "TestSplit(2 samples, unused)"


def test_hands_out_its_samples_once() -> None:
    split = TestSplit(SAMPLES)
    assert [astuple(sample) for sample in split.take_samples()] == [astuple(sample) for sample in SAMPLES]
    with pytest.raises(RuntimeError, match="used already"):
        split.take_samples()


def test_no_public_way_to_the_samples() -> None:
    split = TestSplit(SAMPLES)
    public = [name for name in dir(split) if not name.startswith("_")]
    assert public == ["content_digest", "digests", "listing", "num_samples", "take_samples"]
    assert not hasattr(split, "__dict__")
    with pytest.raises(TypeError):
        iter(split)  # type: ignore[call-overload]


def test_listing_shows_names_only() -> None:
    assert list(TestSplit(SAMPLES).listing())[1] == {
        "path": "b.jpg",
        "label": "b",
        "split": "test",
        "group": "ann",
        "time": "2020",
    }


def test_the_content_digest_depends_on_content_and_labels_but_not_on_names_or_order(tmp_path: Path) -> None:
    def digest(*rows: tuple[str, str, bytes]) -> str:
        for name, _, content in rows:
            (tmp_path / name).write_bytes(content)
        return TestSplit(Sample(str(tmp_path / name), label) for name, label, _ in rows).content_digest()

    first = digest(("1", "a", b"x"), ("2", "b", b"y"))
    assert digest(("4", "b", b"y"), ("3", "a", b"x")) == first
    assert digest(("1", "a", b"x"), ("2", "a", b"y")) != first
    assert digest(("1", "a", b"x"), ("2", "b", b"z")) != first
    grey = [TestSplit([Sample("d", "a", pixels=np.full((2, 2, 3), level, np.uint8))]) for level in (1, 2)]
    assert grey[0].content_digest() != grey[1].content_digest()
