"""``ftexp.compose`` and ``ftexp.fine_tune``: a run from Python equals one of the command, and cleans up behind it."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path

import pytest
from conftest import draw_pictures
from hydra.core.global_hydra import GlobalHydra

import ftexp
from ftexp.config import Config
from ftexp.errors import CheckpointError, ConfigError
from ftexp.evaluation.history import EpochRecord

MODEL = ("model=timm", "model.name=test_efficientnet", "model.weights=null", "data.image_size=32", "runtime.device=cpu")
SETTINGS = (*MODEL, "stage=head", "stage.epochs=2", "train.batch_size=8", "tracking=none", "audit.on_leak=off")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None) -> list[str]:
    """Of a run on 24 pictures."""
    monkeypatch.chdir(tmp_path)
    pictures = draw_pictures(tmp_path / "pictures")
    return [*SETTINGS, "data=imagefolder", f"data.root={pictures}", "runtime.workers=0", "runtime.cache=memory"]


def test_compose_is_what_the_command_line_composes() -> None:
    config = ftexp.compose(
        "stage=partial", "stage.last_blocks=2", "optimizer=sgd", "data.root=a b=c", "data=imagefolder"
    )
    assert isinstance(config, Config)
    assert (config.stage.last_blocks, config.optimizer.name, config.data.root) == (2, "sgd", "a b=c")
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.hed_lr=1", "There is no setting optimizer.hed_lr. Did you mean 'optimizer.head_lr'"),
        ("stage=heads", "There is no stage=heads. Did you mean 'head'"),
        ("optimizer.head_lr=-1", "optimizer.head_lr=-1 is not allowed: it must be auto, or above 0"),
        ("-m", "-m is a flag of the command line. Give settings alone, as key=value"),
        ("resume=outputs/a", r"resume=outputs/a is for the command line.*fine_tune\(folder=\.\.\., resume=True\)"),
        ("hydra.run.dir=a", r"hydra\.run\.dir=a is for the command line"),
        ("train.los=bce", "train.los"),
    ],
)
def test_a_mistake_is_an_error_with_the_message_of_the_command_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ftexp.compose(override)
    assert not GlobalHydra.instance().is_initialized()


def test_a_run_twice_in_one_process(settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handlers = list(logging.getLogger().handlers), list(logging.getLogger("ftexp").handlers)
    stop = signal.getsignal(signal.SIGINT)
    first = ftexp.fine_tune(settings)
    second = ftexp.fine_tune(ftexp.compose(*settings), folder="mine")
    assert first.best.metrics == second.best.metrics
    assert first.test == second.test
    assert first.folder.parts[0] == "outputs"
    assert second.folder == Path("mine")
    for folder in (first.folder, second.folder):
        assert (folder / "ftexp.log").read_text().count("epoch  1/2") == 1
    assert (logging.getLogger().handlers, logging.getLogger("ftexp").handlers) == handlers
    assert signal.getsignal(signal.SIGINT) is stop
    assert Path.cwd() == tmp_path
    overrides = [json.loads((folder / "run.json").read_text())["overrides"] for folder in (first.folder, second.folder)]
    assert overrides == [settings, None], "those of a Config are not known"
    with pytest.raises(ConfigError, match=r"in mine are not saved as text: it was started with a Config"):
        ftexp.fine_tune(folder="mine", resume=True)

    shown = f"RunResult(mine: val accuracy {second.value:.4f} at epoch {second.best.epoch}, test "
    assert repr(second).startswith(shown)
    assert list(second.history["epoch"]) == [1, 2]
    assert second.history["val_accuracy"].max() == second.best.metrics["accuracy"]
    assert second.result["status"] == "finished"
    answers = second.classifier.predict(tmp_path / "pictures" / "dark")
    assert len(answers) == 12
    assert second.classifier.classes == ("dark", "light")


def test_the_log_is_shown_where_the_program_shows_none(
    settings: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    ftexp.fine_tune([*settings, "stage.epochs=1"])
    shown = capsys.readouterr().out
    assert "test accuracy" in shown
    assert logging.getLogger("ftexp").handlers == []


class CtrlC:
    """Pressed before the second epoch."""

    def __init__(self) -> None:
        self.epochs = 0

    def __call__(self, record: EpochRecord) -> None:
        self.epochs += 1

    def before_epoch(self) -> None:
        if self.epochs == 1:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_a_keyboard_interrupt_and_the_run_is_resumed(settings: list[str]) -> None:
    whole = ftexp.fine_tune(settings, folder="whole")

    with pytest.raises(KeyboardInterrupt):
        ftexp.fine_tune(settings, folder="stopped", observers=[CtrlC()])
    assert json.loads(Path("stopped/result.json").read_text())["status"] == "interrupted"
    with pytest.raises(CheckpointError, match="stopped holds a run that was interrupted"):
        ftexp.fine_tune(settings, folder="stopped")
    with pytest.raises(ConfigError, match=r"optimizer\.head_lr"):
        ftexp.fine_tune([*settings, "optimizer.head_lr=0.5"], folder="stopped", resume=True)
    resumed = ftexp.fine_tune(folder="stopped", resume=True)
    assert resumed.best.metrics == whole.best.metrics
    assert resumed.test == whole.test


def test_a_password_is_not_saved_and_is_missed_when_the_run_is_resumed(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr("ftexp.run.run", lambda *_, overrides, **__: given.append(overrides))
    ftexp.fine_tune([*settings, "tracking=mlflow", "tracking.uri=postgresql://me:secret@h/db"], folder="run")
    assert given == [[*settings, "tracking=mlflow", "tracking.uri=postgresql://***@h/db"]]
    Path("run/run.json").write_text(json.dumps({"overrides": given[0]}))
    message = (
        r"^The run in run was given tracking\.uri with a password, which is not saved in its folder\. Give all "
        r"settings again: fine_tune\(\[\.\.\.\], folder=\.\.\., resume=True\)\.$"
    )
    with pytest.raises(ConfigError, match=message):
        ftexp.fine_tune(folder="run", resume=True)


def test_a_resume_needs_its_folder() -> None:
    with pytest.raises(ConfigError, match=r"resume=True needs the folder of the run"):
        ftexp.fine_tune(resume=True)
