"""What did not reach the store is sent later, each value once; a real run, a real sqlite."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from conftest import draw_pictures

from ftexp.errors import ConfigError
from ftexp.report.__main__ import main as write_again
from ftexp.sync import main
from ftexp.tracking.report_page import without_pictures

DATA = ["data=imagefolder", "data.root=pictures", "data.image_size=32", "audit.on_leak=off"]
SETTINGS = [*DATA, "stage=head", "stage.epochs=3", "hydra.run.dir=run"]
COMMAND = [sys.executable, "-m", "ftexp", *SETTINGS]


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose store was a closed port."""
    folder = tmp_path_factory.mktemp("untracked")
    draw_pictures(folder / "pictures")
    command = [*COMMAND, "tracking.uri=http://127.0.0.1:9"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("Not tracked: cannot open tracking.uri=http://127.0.0.1:9") == 1
    assert "python -m ftexp.sync FOLDER" in ended.stdout
    return folder


@pytest.fixture
def folder(untracked: Path, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(untracked / "run", tmp_path / "run")
    shutil.copy(empty_store, tmp_path / "late.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


URI = "tracking.uri=sqlite:///late.db"


def stored(folder: Path) -> tuple[mlflow.MlflowClient, mlflow.entities.Run]:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'late.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("ftexp").experiment_id])
    return client, run


def test_a_run_that_was_never_tracked_arrives_whole_and_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", URI]) == 0
    assert "run: sent to run " in capsys.readouterr().out
    client, run = stored(folder)
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.head_lr"] == "0.001"
    assert len(run.data.tags["data_digest"]) == len(run.data.tags["config_digest"]) == 32
    assert run.data.tags["version.torch"]
    assert [value.step for value in client.get_metric_history(run.info.run_id, "val_loss")] == [1, 2, 3]
    test = json.loads((folder / "run" / "result.json").read_text())["test"]
    assert run.data.metrics["test_accuracy"] == test["accuracy"]
    files = [file.path for file in client.list_artifacts(run.info.run_id)]
    assert {"result.json", "metrics.csv", "curves.png", "report.html", "checkpoints"} <= set(files)
    weights = [Path(file.path).name for file in client.list_artifacts(run.info.run_id, "checkpoints")]
    assert sorted(weights) == ["best.pt", "calibration.json"]
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert {metric.key: metric.value for metric in model.metrics}["test_accuracy"] == test["accuracy"]
    assert f"runs:/{run.info.run_id}/model" in run.data.tags["mlflow.note.content"]
    (dataset,) = run.inputs.dataset_inputs
    assert json.loads(dataset.dataset.profile)["num_train"] == 14
    page = folder / "run" / "report.html"
    sent = Path(client.download_artifacts(run.info.run_id, "report.html", str(folder)))
    assert ("data:image/jpeg" in page.read_text(), "data:image/jpeg" in sent.read_text()) == (True, False)
    assert sent.read_text() == without_pictures(page.read_text())
    assert main(["run", URI]) == 0
    assert capsys.readouterr().out.endswith(f"nothing was missing in run {run.info.run_id}.\n")
    assert len(client.get_metric_history(run.info.run_id, "val_loss")) == 3
    assert stored(folder)[1].info.run_id == run.info.run_id


def test_what_the_store_refuses_is_no_success(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left on the artifact store")

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", refuse)
    assert main(["run", URI]) == 1
    said = capsys.readouterr()
    assert "Sending to sqlite:///late.db stopped: file " in said.err
    assert "no space left on the artifact store. Check that the store works" in said.err
    assert "sent to run" not in said.out


def test_a_model_that_was_refused_is_sent_later_with_its_scores(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no models here")

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "create_logged_model", refuse)
        assert main(["run", URI]) == 1
    assert "stopped: model not recorded: OSError: no models here" in capsys.readouterr().err
    assert main(["run", URI]) == 0
    assert "values 0, settings 0, files 0, models 1" in capsys.readouterr().out
    client, run = stored(folder)
    (output,) = run.outputs.model_outputs
    metrics = client.get_logged_model(output.model_id).metrics
    assert {metric.key for metric in metrics} >= {"val_loss", "val_accuracy", "test_accuracy", "test_loss"}
    assert {metric.dataset_digest for metric in metrics} == {run.inputs.dataset_inputs[0].dataset.digest}


def test_a_run_whose_best_is_its_solved_start_is_sent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((folder / "run" / "result.json").read_text())
    result["best"] |= {"epoch": 0, "val_accuracy": 0.625}
    (folder / "run" / "result.json").write_text(json.dumps(result))
    assert main(["run", URI]) == 0
    client, run = stored(folder)
    history = client.get_metric_history(run.info.run_id, "val_accuracy")
    assert {value.step: value.value for value in history}[0] == 0.625
    (output,) = run.outputs.model_outputs
    assert output.step == 0


def test_the_page_that_is_written_again_is_the_same(
    untracked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(untracked)
    page = untracked / "run" / "report.html"
    before = page.read_text()
    page.unlink()
    assert write_again(["run"]) == 0
    assert capsys.readouterr().out == "run/report.html\n"
    as_before, now = (re.sub(r"written [\d: -]+; \S+", "", text).split("<h2") for text in (before, page.read_text()))
    assert now[:-1] == as_before[:-1]  # the commands are those for the folder as it was named


def test_only_what_is_missing_is_sent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = folder / "run" / "metrics.csv"
    whole = metrics.read_text()
    metrics.write_text("".join(whole.splitlines(keepends=True)[:2]))
    assert main(["run", URI]) == 0
    metrics.write_text(whole)
    capsys.readouterr()
    assert main(["run", URI]) == 0
    client, run = stored(folder)
    assert ", settings 0, files 0, models 0" in capsys.readouterr().out
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [value.step for value in history] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", URI], r"nowhere has no run.json, so no run began to train there"),
        (["run"], r"Sending to http://127.0.0.1:9 failed"),
        (["run", "tracking.uri=folder"], r"tracking.uri=folder is a folder"),
        (
            ["run", URI, "sqlite:///other.db"],
            r"sqlite:///other.db: give a folder and optionally tracking.uri=URI and ",
        ),
        (["run", "tracking=mlflow"], r"tracking=mlflow: give a folder and optionally tracking.uri=URI and "),
    ],
)
def test_what_cannot_be_synced_is_one_message(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_refusal_of_ours_is_passed_on_and_another_experiment_may_be_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(uri: str, experiment: str, *_: object) -> None:
        asked.append((uri, experiment))
        raise ConfigError("tracking.experiment=ftexp was deleted in MLflow.")

    monkeypatch.setattr("ftexp.tracking.mlflow_tracker.MlflowTracker.start", refuse)
    for more in ([URI], ["tracking.experiment=a new one", URI], ["sqlite:///late.db", "tracking.experiment=other"]):
        assert main(["run", *more]) == 1
        assert capsys.readouterr().err == "ftexp: tracking.experiment=ftexp was deleted in MLflow.\n"
    assert asked == [("sqlite:///late.db", name) for name in ("ftexp", "a new one", "other")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", "run/run.json is damaged or cannot be read: "),
        ("run.json", "{}", "run/run.json has other fields than ftexp"),
        ("result.json", "garbage", "run/result.json is damaged or cannot be read: "),
        ("result.json", '{"status": "else"}', "run/result.json has other fields than ftexp"),
    ],
)
def test_a_damaged_folder_is_one_message_that_names_the_file(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, message: str
) -> None:
    (folder / "run" / name).write_text(content)
    assert main(["run", URI]) == 1
    assert f"ftexp: {message}" in capsys.readouterr().err
