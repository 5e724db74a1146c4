from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
from photographs import photograph, save
from PIL import Image

from ftexp.audit.audit import audit_splits, screen_and_look
from ftexp.config import AuditConfig, DataConfig
from ftexp.data.sources.digits import read_digits


def drawing(side: int) -> Image.Image:
    """White, with a black square."""
    pixels = np.full((200, 200, 3), 255, np.uint8)
    pixels[100 : 100 + side, 50 : 50 + side] = 0
    return Image.fromarray(pixels)


def test_blank_images_cause_a_warning_by_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dark = Image.fromarray((np.asarray(photograph(1)) // 32).astype(np.uint8))
    images = {
        "plain.png": Image.new("RGB", (64, 64), (90, 10, 10)),
        "dark.png": dark,
        "bright.png": drawing(10),
        "photo.png": photograph(3),
        "drawing.png": drawing(40),
    }
    samples = [save(tmp_path, name, image, "train") for name, image in images.items()]
    settings = AuditConfig(on_leak="fail", features=False, geometry=False, on_scene="warn", cache=None)
    _, look = screen_and_look(samples, DataConfig(source="imagefolder"), settings, tmp_path, None)
    with caplog.at_level(logging.WARNING):
        audit_splits(samples, settings, tmp_path, look)
    with (tmp_path / "leaks.csv").open(newline="") as file:
        found = {Path(row["path_a"]).name: (row["kind"], row["severity"]) for row in csv.DictReader(file)}
    assert found == {
        "plain.png": ("one_colour", "warn"),
        "dark.png": ("black", "warn"),
        "bright.png": ("saturated", "warn"),
    }
    assert f"an image that is nearly black: 1, for example {tmp_path / 'dark.png'} (train). To fix" in caplog.text


def test_no_digit_is_blank(tmp_path: Path) -> None:
    settings = AuditConfig(on_leak="warn", features=False, geometry=False, on_scene="warn", cache=None)
    samples = read_digits()[:200]
    _, look = screen_and_look(samples, DataConfig(source="digits"), settings, tmp_path, None)
    findings = audit_splits(samples, settings, tmp_path, look).findings
    assert not [finding for finding in findings if finding.kind in ("one_colour", "black", "saturated")]
