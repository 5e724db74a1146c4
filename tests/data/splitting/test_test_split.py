from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ftexp.data.samples import Sample
from ftexp.data.splitting.test_split import SealedTest

SAMPLES = [Sample("a.jpg", "a", "test"), Sample("b.jpg", "b", "test", "ann", "2020")]


def test_counts_without_opening() -> None:
    sealed = SealedTest(SAMPLES)
    assert len(sealed) == sealed.num_samples == 2
    assert repr(sealed) == "SealedTest(2 samples, sealed)"


def test_opens_once() -> None:
    sealed = SealedTest(SAMPLES)
    assert sealed.open() == SAMPLES
    with pytest.raises(RuntimeError, match="opened already"):
        sealed.open()


def test_no_public_way_to_the_samples() -> None:
    sealed = SealedTest(SAMPLES)
    public = [name for name in dir(sealed) if not name.startswith("_")]
    assert public == ["content_digest", "digests", "listing", "num_samples", "open"]
    assert not hasattr(sealed, "__dict__")
    with pytest.raises(TypeError):
        iter(sealed)  # type: ignore[call-overload]


def test_listing_shows_names_only() -> None:
    assert SealedTest(SAMPLES).listing()[1] == {
        "path": "b.jpg",
        "label": "b",
        "split": "test",
        "group": "ann",
        "time": "2020",
    }


def test_content_digest_knows_content_and_labels_but_not_names_or_order(tmp_path: Path) -> None:
    def sealed(*rows: tuple[str, str, bytes]) -> str:
        for name, _, content in rows:
            (tmp_path / name).write_bytes(content)
        return SealedTest(Sample(str(tmp_path / name), label) for name, label, _ in rows).content_digest()

    first = sealed(("1", "a", b"x"), ("2", "b", b"y"))
    assert sealed(("4", "b", b"y"), ("3", "a", b"x")) == first
    assert sealed(("1", "a", b"x"), ("2", "a", b"y")) != first
    assert sealed(("1", "a", b"x"), ("2", "b", b"z")) != first
    grey = [SealedTest([Sample("d", "a", pixels=np.full((2, 2, 3), level, np.uint8))]) for level in (1, 2)]
    assert grey[0].content_digest() != grey[1].content_digest()
