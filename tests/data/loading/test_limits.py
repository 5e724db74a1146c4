"""Files beyond data.max_file_mib or data.max_megapixels are bad images, found without decoding them."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bad_images import find_bad_images
from PIL import Image, ImageFile

from ftexp.audit.cache import FingerprintCache
from ftexp.audit.fingerprints import look_at_images
from ftexp.config import DataConfig
from ftexp.data.loading.limits import NO_LIMITS, ImageLimits
from ftexp.data.samples import Sample

Reasons = Callable[[list[Sample], ImageLimits], list[str | None]]


def screened(samples: list[Sample], limits: ImageLimits) -> list[str | None]:
    """By the check that runs without an audit."""
    reasons = {sample.path: reason for sample, reason in find_bad_images(samples, 1, limits)}
    return [reasons.get(sample.path) for sample in samples]


def looked_at(samples: list[Sample], limits: ImageLimits) -> list[str | None]:
    """By the audit's look at every image."""
    seen = look_at_images(samples, None, FingerprintCache(None), 1, limits)
    return [seen.bad.get(number) for number in range(len(samples))]


ways = pytest.mark.parametrize("reasons", [screened, looked_at])


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that Pillow has decoded."""
    names: list[str] = []
    original = ImageFile.ImageFile.load

    def load(self: ImageFile.ImageFile) -> object:
        if self.tile:  # where there is none, it has been decoded before
            names.append(self.format or "")
        return original(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    return names


def bomb(path: Path, width: int, height: int) -> Sample:
    """A PNG of one colour, of a few kilobytes for any size: compressed without having the pixels in memory."""
    packer, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    packed = b"".join([*(packer.compress(row * 64) for _ in range(-(-height // 64))), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, content in ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")):
            file.write(struct.pack(">I", len(content)) + kind + content)
            file.write(struct.pack(">I", zlib.crc32(kind + content)))
    return Sample(str(path), "a")


@ways
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path, decoded: list[str], reasons: Reasons) -> None:
    """13,000 x 13,000 pixels are half a gigabyte as RGB; Pillow itself stops at 179 megapixels only."""
    sample = bomb(tmp_path / "bomb.png", 13_000, 13_000)
    assert Path(sample.path).stat().st_size < 200_000
    assert reasons([sample], ImageLimits()) == ["169.0 megapixels, above data.max_megapixels=89"]
    assert not decoded


@ways
def test_the_limit_of_the_settings_takes_the_place_of_pillows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, reasons: Reasons
) -> None:
    """Pillow warns above its own limit and refuses twice that, whatever data.max_megapixels says."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    small, large = bomb(tmp_path / "small.png", 50, 50), bomb(tmp_path / "large.png", 14_000, 14_000)
    assert reasons([small], ImageLimits(max_pixels=2500)) == [None]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
    assert reasons([large], ImageLimits(max_pixels=195_000_000)) == ["196.0 megapixels, above data.max_megapixels=195"]
    assert not recwarn.list


@ways
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_nothing_beyond_a_limit_is_decoded(tmp_path: Path, decoded: list[str], reasons: Reasons, kind: str) -> None:
    file = tmp_path / f"picture.{kind}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(file)
    samples, size = [Sample(str(file), "a")], file.stat().st_size
    (reason,) = reasons(samples, ImageLimits(max_pixels=1999))
    assert reason == "0.0 megapixels, above data.max_megapixels=0.001999"
    (reason,) = reasons(samples, ImageLimits(max_file_bytes=size - 1))
    assert reason is not None
    assert "MiB, above data.max_file_mib=" in reason
    assert not decoded
    assert reasons(samples, ImageLimits(max_file_bytes=size, max_pixels=2000)) == [None]
    assert len(decoded) == 1


@ways
def test_a_file_beyond_the_limit_is_not_even_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reasons: Reasons
) -> None:
    file = tmp_path / "sparse.png"
    with file.open("wb") as stream:
        stream.truncate(2**33)  # 8 GiB, of which nothing is on the disk
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    monkeypatch.setattr(Image, "open", lambda _: pytest.fail("opened"))
    assert reasons([Sample(str(file), "a")], ImageLimits()) == ["8192.0 MiB, above data.max_file_mib=64"]


def test_infinite_limits_are_none_also_as_a_checkpoint_has_them() -> None:
    without = DataConfig(source="imagefolder", max_file_mib=math.inf, max_megapixels=math.inf)
    as_text = {"max_file_mib": "inf", "max_megapixels": "inf"}  # JSON has no infinity
    assert ImageLimits.of(without) == ImageLimits.of_checkpoint({"config": {"data": as_text}}) == NO_LIMITS
    assert ImageLimits.of_checkpoint({"config": {}}) == ImageLimits()
