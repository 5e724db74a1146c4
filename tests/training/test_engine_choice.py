"""One engine runs the frozen blocks of a run, and run.json names it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Compose, draw_pictures
from tiny_runs import NAMES, SMALL, colours, curve, fit, fresh_network, resumed, subfolder

from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.finetune.phases import plan_phases
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.machine.runtime import prepare_runtime
from ftexp.models.onnx_prefix import ExportError
from ftexp.preparation.prepare import prepare
from ftexp.training.engine_choice import settle_engine
from ftexp.training.inputs import frozen_engine


def settled(
    configure: Compose, *settings: str, num_images: int = 10**6, device: str = "cpu", begun: str | None = None
) -> str:
    config, network = configure("runtime.device=cpu", *settings), fresh_network()
    runtime = replace(prepare_runtime(config.runtime), device=torch.device(device))
    phases = plan_phases(config, NAMES, network)
    return settle_engine(config, network, phases, num_images, runtime, begun).runtime.frozen_engine


def test_auto_goes_by_the_phase_with_most_frozen_blocks_and_only_by_what_is_cached(configure: Compose) -> None:
    least = frozen_engine.LEAST_WORK
    assert settled(configure, "stage=head", num_images=least // 2) == "onnxruntime"
    assert settled(configure, "stage=head", num_images=least // 2 - 1) == "eager"
    assert settled(configure, "stage=staged", num_images=least // 2) == "onnxruntime"
    assert settled(configure, "stage=partial", num_images=least // 2) == "eager", "one of two blocks is frozen"
    for uncached in ("stage=full", "runtime.cache=off", "augment.mixup=0.2"):
        assert settled(configure, "stage=head", uncached) == "eager"


def test_a_resumed_run_keeps_its_engine_unless_the_user_asks_for_another(configure: Compose) -> None:
    assert settled(configure, "stage=head", begun="eager") == "eager"
    assert settled(configure, "stage=head", num_images=1, begun="onnxruntime") == "onnxruntime"
    assert settled(configure, "stage=head", device="cuda", begun="onnxruntime") == "eager"
    assert settled(configure, "stage=head", "runtime.frozen_engine=eager", begun="onnxruntime") == "eager"


@pytest.mark.parametrize("stage", ["stage=partial", "stage=head"])  # without and with a pass before training
@pytest.mark.parametrize("exports", [True, False])
def test_run_json_names_the_engine_that_runs_and_a_resumed_run_keeps_it(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, exports: bool
) -> None:
    def refuse(*_: object) -> None:
        raise ExportError("no operator")

    monkeypatch.chdir(tmp_path)
    draw_pictures(tmp_path / "pictures")
    images = "data=imagefolder", "data.root=pictures", "data.image_size=32", "audit.on_leak=off", "tracking=none"
    network = "model=timm", "model.name=test_vit", "model.weights=null", "runtime.device=cpu", "runtime.workers=0"
    config = configure(*images, *network, stage, "stage.epochs=1", "train.batch_size=4", "audit.features=false")
    monkeypatch.setattr(frozen_engine, "LEAST_WORK", 1)
    if not exports:
        monkeypatch.setattr(frozen_engine, "export_prefix", refuse)
    folder, engine = subfolder(tmp_path, "run"), "onnxruntime" if exports else "eager"
    prepared = prepare(config, folder, ONE_PROCESS, score_test=False)
    prepared.identity(None).write(folder)
    assert json.loads((folder / "run.json").read_text())["engine"]["frozen_pass"] == engine
    monkeypatch.setattr(frozen_engine, "LEAST_WORK", 10**9 if exports else 1)
    again = prepare(resumed(config, folder), folder, ONE_PROCESS, score_test=False)
    assert [one.settled.config.runtime.frozen_engine for one in (prepared, again)] == [engine, engine]


@pytest.mark.usefixtures("no_pictures")
def test_activations_of_one_engine_are_not_used_for_the_other(configure: Compose, tmp_path: Path) -> None:
    splits = Splits(colours(16, seed=1), colours(8, seed=2), TestSplit(colours(4, seed=3)), ("b", "g", "r", "x"))
    kept = (*SMALL, "stage=head", "runtime.cache=disk", f"runtime.cache_folder={tmp_path / 'kept'}")
    curves, files = [], []
    for number, engine in enumerate(("onnxruntime", "eager", "onnxruntime")):
        config = configure(*kept, f"runtime.frozen_engine={engine}")
        curves.append(curve(fit(config, splits, subfolder(tmp_path, str(number)))))
        files.append(len(list((tmp_path / "kept").glob("*.safetensors"))))
    assert files == [3, 5, 5], "the exported file, and the activations of train and val by each engine"
    assert curves[0] == curves[2]
    assert curves[0][-1] == pytest.approx(curves[1][-1], rel=1e-3)
