"""The commands that look at the frozen network's features, on a folder of noise and with a tiny network."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import TinyNet
from workplaces import BLOCKS, draw_noise

from ftexp import frozen_features
from ftexp.models.blocks import Network
from ftexp.preparation import prepare
from ftexp.preprocessing import Preprocessing

SETTINGS = (
    "data=imagefolder",
    "data.root=base",
    "tracking=none",
    "runtime.device=cpu",
    "runtime.workers=0",
    "audit.features=false",
    "hydra.run.dir=out",
)


def tiny_network() -> Network:
    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(8, 8, "bilinear", half, half)
    return Network(TinyNet(), BLOCKS, head="fc", preprocessing=preprocessing, name="tiny", num_classes=4)


@pytest.fixture
def small_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder ``base`` of four classes of six images each, and the tiny network in the place of the configured one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prepare, "block_names", lambda _: ("stem", "body", "head"))
    monkeypatch.setattr(frozen_features, "locate_weights", lambda _: None)
    monkeypatch.setattr(frozen_features, "build_network", lambda *_: tiny_network())
    draw_noise(tmp_path / "base")
    return tmp_path


def assert_refused_first(
    call: Callable[[], subprocess.CompletedProcess[str]], message: str, module: ModuleType, patch: pytest.MonkeyPatch
) -> None:
    """A command is refused with this message before ``module`` builds the frozen network."""
    patch.setattr(module, "build_frozen", lambda *_: pytest.fail("a network was built"))
    ended = call()
    assert ended.returncode == 1
    assert message in ended.stderr
