"""``python -m ftexp.predict`` in a folder with three photographs, of a classifier that is loaded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from compositions import composed
from finished_runs import write_finished_run
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

import ftexp
from ftexp.config import parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.inference.classifier import Classifier
from ftexp.predict.__main__ import main

NAMES = ("a b=1.png", "-c.png", "d.png")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Loaded once; every command below is given it."""

    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir())):
        run = write_finished_run(tmp_path_factory.mktemp("runs") / "run", lambda *given: parse(composed(given)))
    return ftexp.load(run, device="cpu")


@pytest.fixture
def predict(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., SimpleNamespace]:
    """``predict("photos", "--top-k", "2")`` in a folder with three photographs: code, out and err."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (70, 80, 3)).astype(np.uint8)).save(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ftexp.inference.load.load", lambda *_, **__: classifier)

    def call(*arguments: str) -> SimpleNamespace:
        code = main([str(classifier.run), *arguments])
        return SimpleNamespace(code=code, **dict(zip(("out", "err"), capsys.readouterr(), strict=True)))

    return call
