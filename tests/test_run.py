"""A whole run, from the configuration to its result."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import scores_of
from tiny_runs import resumed
from workplaces import Workplace, workplace

from ftexp.cli.resume_arguments import expand
from ftexp.errors import CheckpointError, ConfigError, InterruptedRunError
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.preparation import prepare
from ftexp.run import _calibrate, run
from ftexp.run_identity import RunIdentity
from ftexp.run_result import RunResult
from ftexp.training.checkpoints.checkpoint import load_checkpoint
from ftexp.training.step import Step

__all__ = ["workplace"]


def stopped(_: Step) -> None:
    raise InterruptedRunError(15)


@pytest.mark.parametrize(("score_test", "resumable"), [(False, True), (True, False)])
def test_whether_it_can_be_resumed_does_not_depend_on_whether_the_test_split_is_scored(
    workplace: Workplace,
    score_test: bool,
    resumable: bool,
) -> None:
    folder = workplace.folder / "run"
    config = workplace.begin("stage=head", "train.keep_last=true")
    run(config, folder, score_test=score_test, resumable=resumable)
    assert (folder / "checkpoints" / "last.pt").exists() == resumable
    assert (json.loads((folder / "result.json").read_text())["test"] is not None) == score_test


def test_a_resumed_run_is_the_run_that_began_and_no_configuration_is_changed(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With train.batch_size=auto, for which the resumed run takes the size that is in run.json."""
    folder = workplace.folder / "run"
    config = workplace.begin("stage=head", "stage.epochs=1", "train.batch_size=auto", "train.keep_last=true")
    again = resumed(config, folder)
    before = deepcopy((config, again))
    with monkeypatch.context() as patch:
        patch.setattr(Step, "update", stopped)
        with pytest.raises(InterruptedRunError):
            run(config, folder, overrides=["stage=head"])
    begun = RunIdentity.read(folder)
    assert begun.config["train"]["batch_size"] == "auto"
    assert (begun.batch_size, begun.overrides, len(begun.run_id)) == (4, ["stage=head"], 32)
    (folder / "run.json").write_text((folder / "run.json").read_text().replace('"batch_size": 4', '"batch_size": 2'))
    run(again, folder, overrides=["resume=run"])
    assert RunIdentity.read(folder) == replace(begun, batch_size=2, config=RunIdentity.read(folder).config)
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["run_id"] == begun.run_id
    assert (config, again) == before


def test_a_finished_run_has_no_more_files_than_are_of_use(workplace: Workplace) -> None:
    folder = workplace.folder / "run"
    run(workplace.begin("stage=head", "stage.epochs=2", "train.wise_ft=[]"), folder)
    assert [file.name for file in sorted((folder / "checkpoints").iterdir())] == ["best.pt", "calibration.json"]
    with pytest.raises(ConfigError, match=r"this run has finished; its result is in .*result\.json"):
        expand([f"resume={folder}"])


def test_a_run_returns_what_its_folder_says(workplace: Workplace) -> None:
    folder = workplace.folder / "run"
    still = ("optimizer.head_lr=1e-12", "optimizer.backbone_lr=1e-12")  # so that no phase gains anything
    settings = ("stage=staged", "stage.epochs=1", "stage.gate=better", "train.metric=macro_f1", *still)
    result = run(workplace.begin(*settings), folder)
    content = json.loads((folder / "result.json").read_text())
    assert result == RunResult.read(folder)
    assert (result.folder, result.metric, result.mlflow_run_id) == (folder, "macro_f1", None)
    assert result.value == result.best.metrics["macro_f1"] == content["best"]["val_macro_f1"]
    assert (result.best.epoch, result.best.metrics["loss"]) == (1, content["best"]["val_loss"])
    assert result.test is not None
    assert result.test.keys() == result.best.metrics.keys() >= {"loss", "accuracy", "macro_f1"}
    assert result.test["accuracy"] == content["test"]["accuracy"]
    assert result.verdicts == {"head": "kept", "last": "dropped", "all": "skipped"}
    assert {file.name for file in (folder / "checkpoints").iterdir()} == {"best.pt", "calibration.json"}
    objectives = [result.objective(name) for name in ("val_loss", "val_macro_f1", "seconds")]
    assert objectives == [result.best.metrics["loss"], result.value, content["seconds"]]
    (folder / "result.json").write_text('{"status": "interrupted"}')
    with pytest.raises(CheckpointError, match="holds no finished run"):
        RunResult.read(folder)


@pytest.mark.parametrize(
    ("settings", "of_sweep", "largest", "judged"),
    [
        ((), False, 20, 20),
        (("audit.labels=false",), False, 20, 0),
        (("audit.on_leak=off",), False, 20, 0),
        ((), True, 20, 0),
        ((), False, 19, 0),
    ],
    ids=["judged", "switched off", "without the audit", "in a sweep", "too many"],
)
def test_labels_are_judged_where_the_audit_has_looked(
    workplace: Workplace,
    settings: tuple[str, ...],
    of_sweep: bool,
    largest: int,
    judged: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepare, "MAX_JUDGED", largest)
    config = workplace.begin("stage=head", "stage.epochs=15", "data.test_fraction=0.15", *settings)
    run(config, workplace.folder / "run", score_test=not of_sweep, resumable=False)
    told = json.loads((workplace.folder / "run" / "result.json").read_text())["labels"]
    assert (told or {"num_images": 0})["num_images"] == judged


def test_a_best_epoch_without_logits_is_not_calibrated_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    settled = SimpleNamespace(config=SimpleNamespace(train=SimpleNamespace(calibrate=True)))
    begun = SimpleNamespace(runtime=SimpleNamespace(ranks=ONE_PROCESS), settled=settled)
    older = SimpleNamespace(best=SimpleNamespace(scores=scores_of([0, 1], [0, 1], 2)))
    _calibrate(begun, SimpleNamespace(folder=Path("a run")), older)
    assert "kept no logits of its best epoch. Try python -m ftexp.calibrate 'a run'." in caplog.text
