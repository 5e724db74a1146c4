from __future__ import annotations

import numpy as np
import pytest

from ftexp.audit import fingerprint_table
from ftexp.audit.fingerprint_table import Fingerprint, Fingerprints
from ftexp.data.digests import bytes_digest


def fingerprint(seed: int, features: int = 3, views: bool = True) -> Fingerprint:
    rng = np.random.default_rng(seed)
    facts: dict[str, str | float] = {"width": 40 + seed, "height": 90, "exif_make": "ä" * seed}
    return Fingerprint(
        bytes_digest(str(seed).encode()),
        bytes_digest(b"even" if seed % 2 == 0 else str(seed).encode()),
        rng.integers(0, 256, (64, 64), np.uint8),
        40 + seed,
        facts,
        rng.normal(size=features).astype(np.float16),
        rng.normal(size=(2, features if views else 0)).astype(np.float16),
    )


KEPT = [fingerprint(0), fingerprint(1, views=False), fingerprint(2, features=0), fingerprint(3), fingerprint(4)]


def same(first: Fingerprint, second: Fingerprint) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in Fingerprint.__slots__)


@pytest.mark.parametrize("in_memory", [2**20, 6000])
def test_fingerprints_are_read_as_they_were_written(monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(fingerprint_table, "MAX_BYTES_IN_MEMORY", in_memory)
    prints = Fingerprints(KEPT)
    assert prints._records._file._rolled == (in_memory == 6000)  # type: ignore[attr-defined]
    assert len(prints) == 5
    assert all(same(one, other) for one, other in zip(prints, KEPT, strict=True))
    assert prints.sides.tolist() == [40, 41, 42, 43, 44]
    assert prints.have_features.tolist() == [True, True, False, True, True]
    assert prints.have_views.tolist() == [True, False, False, True, True]
    assert [prints.content(number) for number in range(5)] == [one.content for one in KEPT]
    equal = prints.pictures[:, None] == prints.pictures
    assert (equal == [[one.pixels == other.pixels for one in KEPT] for other in KEPT]).all()
    assert np.array_equal(prints.thumbnails([3, 1]), [KEPT[3].thumbnail, KEPT[1].thumbnail])
    assert np.array_equal(prints.features([4, 0]), [[KEPT[at].features, *KEPT[at].views] for at in (4, 0)])
    assert np.array_equal(prints.features([1]), [[KEPT[1].features]])


def test_some_of_them_in_another_order() -> None:
    chosen = Fingerprints(KEPT).take([4, 1, 2])
    assert all(same(one, KEPT[at]) for one, at in zip(chosen, (4, 1, 2), strict=True))
    assert chosen.have_views.tolist() == [True, False, False]
    assert chosen.pictures[0] == chosen.pictures[2] != chosen.pictures[1]
    assert [one.side for one in chosen[1:]] == [41, 42]
