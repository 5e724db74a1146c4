"""The data of a run: read, split and audited."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import Compose
from small_pictures import SETTINGS, small_pictures

from ftexp.preparation.read_data import read_data

__all__ = ["small_pictures"]

OVERRIDES = [text for text in SETTINGS if not text.startswith("hydra.")]


def test_where_copies_are_tied_the_audit_does_not_search_for_them_again(
    small_pictures: Path, configure: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy("base/ape/0.png", "base/ape/copy.png")
    monkeypatch.setattr("ftexp.audit.audit.find_copies", None)  # calling it would be a TypeError
    config = configure(*OVERRIDES, "audit.on_leak=fail", "data.tie_duplicates=true")
    read_data(config, small_pictures, torch.device("cpu"))
    assert "ape/copy.png" in (small_pictures / "leaks.csv").read_text(), "a repeat within one split, and no leak"
