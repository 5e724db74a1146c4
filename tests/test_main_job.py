"""The main job as a newcomer runs it: ``python -m ftexp`` in an empty folder, with no network."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import mlflow
import pytest
import torch
import yaml
from conftest import CommandLine
from PIL import Image

# Any attempt to reach a network goes to a closed port of this machine.
NO_NETWORK = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}


def ftexp(*arguments: str, folder: Path, seconds: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ftexp", *arguments],
        cwd=folder,
        env={**os.environ, **NO_NETWORK, **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="module")
def ended(workplace: Path) -> subprocess.CompletedProcess[str]:
    return ftexp(folder=workplace, PYTHONPROFILEIMPORTTIME="1")


@pytest.fixture(scope="module")
def run_folder(workplace: Path, ended: subprocess.CompletedProcess[str]) -> Path:
    assert ended.returncode == 0, ended.stderr
    (folder,) = workplace.glob("outputs/*/*")
    return folder


def test_it_reaches_the_promised_accuracy_and_says_so_last(
    ended: subprocess.CompletedProcess[str], run_folder: Path
) -> None:
    test = json.loads((run_folder / "result.json").read_text())["test"]
    assert test["accuracy"] >= 0.97
    assert test["accuracy_ci95"][0] < test["accuracy"] < test["accuracy_ci95"][1]
    last_line = ended.stdout.strip().splitlines()[-1]
    assert f"test accuracy {test['accuracy']:.4f}" in last_line
    assert str(run_folder) in last_line
    assert "Traceback" not in ended.stderr


def test_it_does_not_import_what_it_has_no_use_for(ended: subprocess.CompletedProcess[str]) -> None:
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if "import time:" in line}
    assert "torch" in imported
    assert not imported & {"torch._dynamo", "torch._inductor", "timm.optim"}


def test_the_result_is_complete(run_folder: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["metric"] == "accuracy"
    assert {"epoch", "val_accuracy", "val_macro_f1", "val_loss"} <= set(result["best"])
    assert {"accuracy", "accuracy_ci95", "macro_f1", "loss", "num_samples"} <= set(result["test"])
    head, last, everything = result["phases"]
    # The head has the outputs of all blocks; the last stage of EfficientNet-Lite0 learns with its 1 x 1 convolution.
    assert head["trainable_parameters"] == 1_776 * 10 + 10
    assert last["trainable_parameters"] == 1_017_600 + head["trainable_parameters"]
    assert [phase["name"] for phase in (head, last, everything)] == ["head", "last", "all"]
    assert everything["verdict"] == "skipped"  # validation has hardly an error left
    for key in ("images_per_second", "peak_memory_mib", "seconds"):
        assert result[key] > 0, key
    assert (run_folder / result["checkpoint"]).is_file()


def test_every_sample_is_in_exactly_one_split(run_folder: Path) -> None:
    rows = read_csv(run_folder / "splits.csv")
    assert len(rows) == len({row["path"] for row in rows}) == 1797
    shares = Counter(row["split"] for row in rows)
    assert shares["val"] / 1797 == pytest.approx(0.2, abs=0.01)
    assert shares["test"] / 1797 == pytest.approx(0.2, abs=0.01)
    assert {row["label"] for row in rows if row["split"] == "test"} == set("0123456789")


def test_the_curves_are_saved_as_numbers_and_pictures(run_folder: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    rows = read_csv(run_folder / "metrics.csv")
    assert [int(row["epoch"]) for row in rows] == list(range(1, sum(phase["epochs"] for phase in result["phases"]) + 1))
    best = max(rows, key=lambda row: float(row["val_accuracy"]))
    assert float(best["val_accuracy"]) == result["best"]["val_accuracy"]
    for name in ("curves.png", "confusion_matrix.png"):
        with Image.open(run_folder / name) as picture:
            assert min(picture.size) > 300, name


def test_the_groups_account_for_the_whole_network(run_folder: Path) -> None:
    rows = [row for row in read_csv(run_folder / "param_groups.csv") if row["phase"] == "last"]
    assert sum(int(row["parameters"]) for row in rows) == 3_371_008 + 1_776 * 10 + 10
    assert {row["block"] for row in rows if row["trainable"] == "True"} == {"stage7", "head"}


def test_the_composed_configuration_and_a_log_are_kept(run_folder: Path) -> None:
    config = yaml.safe_load((run_folder / ".hydra" / "config.yaml").read_text())
    assert config["model"]["name"] == "tf_efficientnet_lite0"
    assert "epoch" in (run_folder / "ftexp.log").read_text()


def test_the_checkpoint_is_plain_data(run_folder: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    content = torch.load(run_folder / "checkpoints" / "best.pt", weights_only=True)
    assert content["value"] == result["best"]["val_accuracy"]
    assert content["class_to_idx"] == {str(digit): digit for digit in range(10)}
    assert not [name for name in content["model"] if name.startswith("_orig_mod.")]
    assert content["preprocessing"]["mean"] == [0.5, 0.5, 0.5]


def test_mlflow_has_the_same(workplace: Path, run_folder: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    client = mlflow.MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")
    run = client.get_run(result["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.head_lr"]
    assert run.data.params["stage.phases.1.learn"] == "last"
    assert run.data.metrics["test_accuracy"] == result["test"]["accuracy"]
    history = client.get_metric_history(run.info.run_id, "val_accuracy")
    assert len(history) == sum(phase["epochs"] for phase in result["phases"])
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"splits.csv", "metrics.csv", "param_groups.csv", "curves.png", "result.json", "checkpoints"} <= artifacts
    checkpoints = [Path(file.path).name for file in client.list_artifacts(run.info.run_id, "checkpoints")]
    assert sorted(checkpoints) == ["best.pt", "calibration.json"]


def test_ctrl_c_ends_at_once_and_leaves_a_marked_run(tmp_path: Path, store: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ftexp", "stage=full", "stage.epochs=50", "data.image_size=32", "audit.on_leak=off"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(tmp_path, "outputs/*/*/param_groups.csv", process)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "ftexp: interrupted."
    assert "Traceback" not in errors
    (result,) = tmp_path.glob("outputs/*/*/result.json")
    assert json.loads(result.read_text())["status"] == "interrupted"
    client = mlflow.MlflowClient(store)  # in its working folder, as by default
    (run,) = client.search_runs([client.get_experiment_by_name("ftexp").experiment_id])
    assert run.info.status == "KILLED"


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {pattern} after {seconds} s"
        time.sleep(0.2)


OWN = ("data=imagefolder", "data.root=pictures", "data.image_size=32", "tracking=none", "stage=head", "stage.epochs=1")


@pytest.mark.usefixtures("pictures")
def test_ones_own_folder_of_pictures(tmp_path: Path, command_line: CommandLine) -> None:
    ended = command_line(*OWN)
    assert ended.returncode == 0, ended.stderr
    (result,) = tmp_path.glob("outputs/*/*/result.json")
    assert json.loads(result.read_text())["test"]["num_samples"] > 0


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "dark" / "3.jpg").write_bytes(b"no picture"), r"dark/3\.jpg"),
        (lambda folder: truncate(folder / "light" / "5.jpg"), r"light/5\.jpg"),
        (lambda folder: folder.rename(folder.with_name("gone")), r"pictures"),
        (lambda folder: (folder / "dark").rename(folder.parent / "dark"), r"only one class"),
    ],
    ids=["no image", "cut short", "missing", "one class"],
)
def test_data_that_cannot_be_trained_on_is_one_message(
    tmp_path: Path, pictures: Path, command_line: CommandLine, break_it: object, message: str
) -> None:
    assert callable(break_it)
    break_it(pictures)
    ended = command_line(*OWN)
    assert ended.returncode == 1
    assert re.search(message, ended.stderr)
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("outputs/*/*/checkpoints/*"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def test_weights_that_cannot_be_reached_are_an_error_with_ways_out(
    tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**NO_NETWORK, "TORCH_HOME": str(tmp_path / "torch")}.items():
        monkeypatch.setenv(name, value)
    started = time.monotonic()
    ended = command_line("model=efficientnet_b0")
    assert ended.returncode == 1
    assert time.monotonic() - started < 60
    for part in ("efficientnet_b0_rwightman-", str(tmp_path / "torch"), "model.weights=null", "efficientnet_lite0"):
        assert part in ended.stderr, part
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_run_whose_validation_loss_is_not_finite_fails_and_says_so(pictures: Path) -> None:
    quick = ["stage=head", "stage.epochs=1", "train.batch_size=8", "data.image_size=32", "audit.on_leak=warn"]
    wild = ["optimizer.head_lr=1e30", "train.clip_norm=null", "hydra.run.dir=run", "tracking=none"]
    ended = ftexp("data=imagefolder", f"data.root={pictures}", *quick, *wild, folder=pictures.parent)
    assert ended.returncode == 1
    assert "ftexp: The validation loss is not finite (nan)" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "best" not in ended.stdout.partition("nan  ")[2]
    result = json.loads((pictures.parent / "run" / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["status"] == "failed"
