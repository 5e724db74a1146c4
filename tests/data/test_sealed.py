from __future__ import annotations

import pytest

from ftexp.data.samples import Sample
from ftexp.data.sealed import SealedTest

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
    assert public == ["listing", "num_samples", "open"]
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
