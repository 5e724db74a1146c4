"""``ftexp.evaluate`` and ``ftexp.calibrate`` with whole runs: the logged scores come again, exactly."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Compose
from matplotlib.figure import Figure
from PIL import Image
from workplaces import draw_noise

import ftexp
from ftexp import calibrate, evaluate
from ftexp.config import RuntimeConfig
from ftexp.config.compose import as_data
from ftexp.data.splitting.test_ledger import TestLedger
from ftexp.data_identity import DataIdentity
from ftexp.errors import ConfigError, DataError, DeviceError
from ftexp.evaluation import intervals
from ftexp.evaluation.calibration import fit_temperature
from ftexp.inference import run_evaluation
from ftexp.inference.calibration import read_calibration
from ftexp.inference.run_evaluation import _runtime, evaluate_on_split
from ftexp.machine.device_kinds import KINDS
from ftexp.run_identity import RunIdentity
from ftexp.run_images import read_images

pytestmark = pytest.mark.usefixtures("in_a_folder")
SETTINGS = (
    *("model=timm", "model.name=test_efficientnet", "model.weights=null", "data=imagefolder", "data.root=animals"),
    *("data.image_size=32", "data.val_fraction=0.5", "train.batch_size=5", "stage.epochs=2", "optimizer.head_lr=0.01"),
    *("runtime.device=cpu", "runtime.workers=0", "audit.on_leak=off", "tracking=none", "test.max_uses=2"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of four classes, and two runs on them: with kept activations, and without."""
    folder = tmp_path_factory.mktemp("runs")
    draw_noise(folder / "animals")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Figure, "savefig", lambda _, path, **__: Path(path).touch())
        patch.setattr(intervals, "NUM_RESAMPLES", 10)
        ftexp.fine_tune([*SETTINGS, "stage=head", "runtime.cache=memory"], folder="head", score_test=False)
        ftexp.fine_tune([*SETTINGS, "stage=full", "runtime.cache=off"], folder="full", score_test=False)
    return folder


@pytest.fixture
def in_a_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None) -> None:
    """A copy of all of that is the working folder."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(intervals, "NUM_RESAMPLES", 10)


def content(folder: str) -> dict[str, object]:
    written: dict[str, object] = json.loads(Path(folder, "evaluation.json").read_text())
    return written


@pytest.mark.parametrize("run", ["head", "full"])
def test_the_logged_scores_come_again_exactly(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.read_bytes() for file in Path(run).rglob("*") if file.is_file()}
    assert evaluate.main([run]) == 0
    assert "exactly these scores were logged by the run" in capsys.readouterr().out
    logged = content(f"{run}/evaluations/val")["logged"]
    assert isinstance(logged, dict)
    assert (logged["exact"], logged["differences"]) == (True, [])
    best = json.loads(Path(run, "result.json").read_text())["best"]
    assert logged["now"]["loss"] == best["val_loss"]
    assert logged["now"]["accuracy"] == best["val_accuracy"]
    assert before == {file: file.read_bytes() for file in before}
    assert evaluate.main([run]) == 0
    assert Path(run, "evaluations", "val-2").is_dir()


def test_batches_are_padded_as_the_run_padded_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, where in bf16 the loss differed in its seventh digit otherwise."""
    monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], prepares_sizes=True))
    ftexp.fine_tune([*SETTINGS, "stage=full", "runtime.cache=off"], folder="padded", score_test=False)
    sizes: list[int] = []
    normal = torch.nn.Linear.forward

    def watched(layer: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs))
        return normal(layer, inputs)

    monkeypatch.setattr(torch.nn.Linear, "forward", watched)
    evaluated = evaluate_on_split("padded", "val", (), None, None)
    assert evaluated.evaluation.scores.num_samples % 5, "the last batch is smaller"
    assert sizes[-1] == 5
    assert evaluated.reproduced is not None
    assert evaluated.reproduced.exact


def test_another_engine_is_said_and_its_probabilities_are_close(capsys: pytest.CaptureFixture[str]) -> None:
    with_own = evaluate_on_split("full", "val", (), None, None)
    other = evaluate_on_split("full", "val", (), None, 3)
    assert other.reproduced is not None
    assert other.reproduced.differences == ("batch_size: 5 -> 3",)
    gap = np.abs(with_own.evaluation.probabilities - other.evaluation.probabilities).max()
    assert gap < 1e-4
    facts = json.loads(Path("full/run.json").read_text())
    facts["engine"].update(precision="bf16", device_kind="H100")
    facts["engine"].pop("threads")
    Path("full/run.json").write_text(json.dumps(facts))
    best = json.loads(Path("full/result.json").read_text())
    best["best"]["val_loss"] += 1e-3
    Path("full/result.json").write_text(json.dumps(best))
    assert evaluate.main(["full"]) == 0
    text = capsys.readouterr().out
    assert "other scores were logged by the run: loss" in text
    assert "precision: bf16 -> fp32" in text


def test_images_that_were_moved_and_renamed_are_found_by_content() -> None:
    before = evaluate_on_split("head", "val", (), None, None)
    for number, file in enumerate(sorted(Path("animals").rglob("*.png"), reverse=True)):
        (Path("zoo") / file.parent.name).mkdir(parents=True, exist_ok=True)
        file.rename(Path("zoo") / file.parent.name / f"{number}.png")
    shutil.rmtree("animals")
    Path("animals/ape").mkdir(parents=True)
    Path("animals/bee").mkdir()
    Image.new("RGB", (64, 64)).save("animals/ape/0.png")
    Image.new("RGB", (64, 64)).save("animals/bee/0.png")
    with pytest.raises(DataError, match=r"\d+ of the \d+ val images .* are not there: .*--data data\.root=FOLDER"):
        evaluate_on_split("head", "val", (), None, None)
    moved = evaluate_on_split("head", "val", ("data.root=zoo",), None, None)
    assert moved.reproduced is not None
    assert moved.reproduced.exact
    assert moved.evaluation.labels.tolist() == before.evaluation.labels.tolist()
    with pytest.raises(ConfigError, match=r"--data root=zoo: settings of the data are given as data\.KEY=VALUE"):
        evaluate_on_split("head", "val", ("root=zoo",), None, None)


def test_the_test_split_is_counted_and_used_up(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert evaluate.main(["head"]) == 0
    assert not Path("test_ledger.sqlite").exists(), "the validation split is not counted"
    assert evaluate.main(["head", "--split", "test"]) == 0
    # The same images as data of any other name are the test split.
    test = [image for image in read_images(Path("head")) if image.split == "test"]
    rows = "\n".join(f"{image.path},{image.label}" for image in test)
    Path("test.csv").write_text(f"path,label\n{rows}\n")
    assert evaluate.main(["full", "--data", "data=manifest", "data.file=test.csv"]) == 0
    assert "use 2 of this test set" in caplog.text
    assert evaluate.main(["head", "--split", "test"]) == 1
    assert "This test set has been used 2 times, and test.max_uses=2" in capsys.readouterr().err
    ledger = TestLedger(Path("test_ledger.sqlite"))
    (test_set,) = {row[0] for row in _rows(Path("test_ledger.sqlite"))}
    uses = ledger.uses(test_set)
    assert [Path(use.run).name for use in uses] == ["head (evaluate)", "full (evaluate)"]
    assert uses[0].accuracy is not None


def _rows(file: Path) -> list[tuple[str]]:
    import sqlite3

    with sqlite3.connect(file) as connection:
        return connection.execute("SELECT test_set FROM uses").fetchall()


def test_other_data_is_matched_by_name_and_what_was_trained_on_is_said(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    train = next(image.path for image in read_images(Path("head")) if (image.split, image.label) == ("train", "cow"))
    for name, source in (("new/cow/a.png", train), ("new/emu/b.png", None), ("new/yak/c.png", None)):
        Path(name).parent.mkdir(parents=True)
        Image.new("RGB", (64, 64), "red").save(name) if source is None else shutil.copy(source, name)
    Path("new/yak/broken.png").write_bytes(Path("new/yak/c.png").read_bytes()[:40])
    assert evaluate.main(["head", "--data", "data=imagefolder", "data.root=new", "--output", "out"]) == 0
    said = capsys.readouterr().out
    assert "1 of the 4 images are training images of the run" in caplog.text
    assert "the classifier lacks yak: their 1 images count as wrong" in said
    assert "no image of ape, bee" in said
    assert "1 images cannot be read and are not scored" in said
    written = content("out")
    assert (written["num_images"], written["num_unreadable"]) == (3, 1)
    assert written["logged"] is None
    assert evaluate.main(["head", "--data", "data=imagefolder", "data.root=new", "--output", "out"]) == 1
    assert "out is there already and not empty" in capsys.readouterr().err
    with pytest.raises(DataError, match="brings no splits of its own, and test was asked for"):
        ftexp.load("head").evaluate("new", split="test")
    assert ftexp.load("head").evaluate("new").metrics["accuracy"] == written["metrics"]["accuracy"]  # type: ignore[index]


def test_several_runs_are_compared_on_the_same_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["head", "full", "--metric", "macro_f1"]) == 0
    text = capsys.readouterr().out
    assert "difference in macro F1" in text
    with Path("evaluations/val/runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, folder in zip(rows, ("1-head", "2-full"), strict=True):
        metrics = content(f"evaluations/val/{folder}")["metrics"]
        for name, label in (("macro_f1", "macro F1"), ("log_loss", "log loss"), ("accuracy", "accuracy")):
            assert float(row[label]) == pytest.approx(metrics[name]), (folder, name)  # type: ignore[index]
    assert {path.name for path in Path("evaluations/val").iterdir()} == {
        *("1-head", "2-full", "comparison.csv", "runs.csv")
    }
    facts = read_images(Path("full"))
    lines = Path("full/digests.csv").read_text().splitlines()
    place = next(number for number, image in enumerate(facts, 1) if image.split == "val")
    Path("full/digests.csv").write_text("\n".join(lines[:place] + lines[place + 1 :]) + "\n")
    assert evaluate.main(["head", "full"]) == 1
    assert "The runs were validated on different images: 1 of the" in capsys.readouterr().err


def test_a_run_fits_the_temperature_of_its_best_network(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found, result = ftexp.load("full").evaluate(), json.loads(Path("full/result.json").read_text())
    temperature = fit_temperature(found.logits, found.labels)
    assert temperature != pytest.approx(1, rel=0.05)
    assert found.temperature == result["temperature"] == pytest.approx(temperature, rel=1e-5)
    assert found.calibration is not None
    assert (found.calibration.sets, found.calibration.abstain) == (None, None)
    assert result["best"]["val_loss"] == found.scores.loss != found.calibration_figures(temperature)["log_loss"]
    caplog.set_level("INFO")
    for calibrates in (False, True):
        again = ftexp.fine_tune(
            [*SETTINGS, "stage=head", f"train.calibrate={calibrates}"], folder=f"{calibrates}", score_test=False
        )
        assert (again.folder / "checkpoints" / "calibration.json").exists() == calibrates
        assert (again.result["temperature"] is not None) == calibrates
        assert (
            f"calib.  temperature {again.result['temperature'] or 1:.4f}: validation log" in caplog.text
        ) == calibrates


def test_calibrate_writes_beside_the_checkpoint_and_everything_uses_it(capsys: pytest.CaptureFixture[str]) -> None:
    best = Path("full/checkpoints/best.pt")
    weights = best.read_bytes()
    plain = ftexp.load("full").evaluate()
    assert calibrate.main(["full", "--coverage", "0.6", "--sets", "aps"]) == 0
    said = capsys.readouterr()
    assert "APS, coverage 0.6 asked for" in said.out
    assert best.read_bytes() == weights
    calibration = read_calibration(best)
    assert calibration is not None
    assert calibration.sets is not None
    assert calibration.calibrated["log_loss"] <= calibration.uncalibrated["log_loss"]
    found = ftexp.load("full").evaluate()
    assert found.temperature == calibration.temperature
    assert found.scores.loss == plain.scores.loss
    assert found.calibration_figures(found.temperature)["log_loss"] == calibration.calibrated["log_loss"]
    assert evaluate.main(["full"]) == 0
    assert f"calibrated, temperature {calibration.temperature:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coverage", "0.99"], r"A coverage of 0.99 takes at least 99 images"),
        (["--accuracy", "0.99"], r"no threshold above which 0.99 of the answers are right: at least 100"),
        (["--coverage", "90"], r"--coverage 90: it has to be above 0 and below 1"),
    ],
)
def test_what_so_few_images_cannot_show_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path("head/checkpoints/calibration.json")
    before = file.read_bytes()
    assert calibrate.main(["head", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert file.read_bytes() == before


def test_where_nothing_was_asked_for_too_few_images_are_said(caplog: pytest.LogCaptureFixture) -> None:
    assert calibrate.main(["head"]) == 0
    assert "No threshold for abstaining is chosen; --accuracy takes another share" in caplog.text


def test_a_run_begins_with_the_rows_of_another_ones_classes_also_where_they_were_renamed() -> None:
    Path("animals/ape").rename("animals/gorilla")
    shutil.rmtree("animals/cow")
    start = ["model.weights=head", "model.class_map={ape: gorilla}", "stage=head", "stage.epochs=1"]
    ftexp.fine_tune([*SETTINGS, *start, "optimizer.head_lr=1e-12"], folder="second", score_test=False)
    before, after = ftexp.load("head"), ftexp.load("second")
    assert (before.classes, after.classes) == (("ape", "bee", "cow", "emu"), ("bee", "emu", "gorilla"))
    heads = [classifier.module.get_parameter("classifier.weight") for classifier in (before, after)]
    assert torch.allclose(heads[1], heads[0][[1, 3, 0]], atol=1e-6)


def test_a_run_is_evaluated_in_its_own_memory_format(configure: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its scores would differ in their last bits; on another kind of device, few images wait the least."""
    config = as_data(configure("runtime.device=cpu"))
    monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], channels_last_from=5000))
    for own, trained_in, expected in (
        ("cpu", "contiguous_format", torch.contiguous_format),
        ("cpu", "channels_last", torch.channels_last),
        ("cuda", "channels_last", torch.contiguous_format),
    ):
        engine = {"device": own, "memory_format": trained_in}
        identity = RunIdentity(config, DataIdentity([], "", "", []), {}, batch_size=5, engine=engine)
        assert _runtime(identity, "cpu").memory_format == expected


@pytest.mark.parametrize(
    ("there", "expected", "warned"),
    [(("cuda", "auto"), ("cuda", "bf16"), False), (("auto",), ("auto", "fp32"), True)],
)
def test_a_run_on_the_third_gpu_is_evaluated_on_the_first_in_its_own_precision(
    configure: Compose,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    there: tuple[str, ...],
    expected: tuple[str, str],
    warned: bool,
) -> None:
    """As a trial of a sweep, on a machine with one GPU."""

    def prepare(settings: RuntimeConfig) -> tuple[str, str]:
        if settings.device not in there:
            raise DeviceError(f"no {settings.device}.")
        return settings.device, settings.precision

    monkeypatch.setattr(run_evaluation, "prepare_runtime", prepare)
    config = configure("runtime.device=cuda:2", "runtime.precision=bf16")
    identity = RunIdentity(as_data(config), DataIdentity([], "", "", []), {}, batch_size=5, engine={"device": "cuda"})
    assert run_evaluation._on_a_device(config.runtime, identity, None) == expected
    assert ("The run's device is not available: no cuda:2. Evaluating on this machine's" in caplog.text) == warned
