from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from photographs import fingerprints_of, photograph, save
from PIL import Image

from ftexp.audit import look
from ftexp.audit.cache import FingerprintCache
from ftexp.audit.fingerprint_table import Fingerprint
from ftexp.data.samples import Sample


class CountingExtractor:
    name = "counting"
    views = False

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        assert images.shape[1:] == (64, 64, 3)
        self.seen += len(images)
        return images.mean(axis=(1, 2)).astype(np.float32)


def same(first: Fingerprint, second: Fingerprint) -> bool:
    plain = ("content", "pixels", "side", "facts")
    return all(getattr(first, name) == getattr(second, name) for name in plain) and all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in ("thumbnail", "features")
    )


def test_a_fingerprint_has_the_facts_of_an_image(tmp_path: Path) -> None:
    image = photograph(0).resize((120, 80))
    exif = Image.Exif()
    exif[0x010F] = "Canon"
    (taken,) = fingerprints_of(
        [save(tmp_path, "a.png", image, exif=exif)], CountingExtractor(), FingerprintCache(None), 1
    )
    assert taken.side == 80
    assert taken.facts["exif_make"] == "Canon"
    assert (taken.facts["width"], taken.facts["height"], taken.facts["format"]) == (120, 80, "PNG")
    assert taken.thumbnail.shape == (64, 64)
    assert np.allclose(taken.features, np.asarray(image).mean(axis=(0, 1)), atol=2)


def test_same_picture_in_two_formats(tmp_path: Path) -> None:
    samples = [
        save(tmp_path, "a.png", photograph(0)),
        save(tmp_path, "a.bmp", photograph(0)),
        save(tmp_path, "b.png", photograph(1)),
    ]
    png, bmp, other = fingerprints_of(samples, None, FingerprintCache(None), 2)
    assert png.content != bmp.content
    assert png.pixels == bmp.pixels != other.pixels


def test_the_second_run_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [save(tmp_path, f"{seed}.png", photograph(seed)) for seed in range(3)]
    extractor, cache = CountingExtractor(), tmp_path / "deep" / "cache.sqlite"
    first = fingerprints_of(samples, extractor, FingerprintCache(cache), 1)
    with monkeypatch.context() as patch:
        patch.setattr(look, "decode_opened", None)  # calling it would fail
        second = fingerprints_of(samples, extractor, FingerprintCache(cache), 1)
    assert all(same(one, two) for one, two in zip(first, second, strict=True))
    assert extractor.seen == 3
    # Content counts, not the name: a changed file is looked at again, a moved one is not.
    photograph(9).save(samples[0].path)
    moved = save(tmp_path, "moved.png", photograph(1))
    fingerprints_of([samples[0], moved], extractor, FingerprintCache(cache), 1)
    assert extractor.seen == 4


def test_small_images_get_no_features() -> None:
    small = Sample("s", "a", pixels=np.zeros((8, 8, 3), np.uint8))
    extractor = CountingExtractor()
    (taken,) = fingerprints_of([small], extractor, FingerprintCache(None), 1)
    assert len(taken.features) == 0
    assert extractor.seen == 0
