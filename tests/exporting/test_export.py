"""``python -m ftexp.export`` writes a file with its certificate, or says in one message why not."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Compose, draw_pictures
from PIL import Image

import ftexp
from ftexp.config import ImageFolderConfig
from ftexp.data.loading.limits import ImageLimits
from ftexp.data.sources.registry import read_samples
from ftexp.data.splitting.splits import make_splits
from ftexp.data_identity import DataIdentity
from ftexp.export import main
from ftexp.exporting import exported, formats
from ftexp.exporting.formats import Format
from ftexp.exporting.graph import ClassifierGraph
from ftexp.exporting.metadata import ExportMetadata
from ftexp.exporting.opened import OpenedFile
from ftexp.exporting.pixels import PixelTransform
from ftexp.inference.calibration import AbstainRule, Calibration, checkpoint_digest
from ftexp.inference.run_evaluation import evaluate_on_data, evaluate_on_split
from ftexp.models.catalogue import build_network
from ftexp.run_identity import RunIdentity
from ftexp.run_images import read_images
from ftexp.training.checkpoints.checkpoint import checkpoint_content, load_checkpoint, write_checkpoint


@pytest.fixture
def run(tmp_path: Path, configure: Compose, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished run of a small network of timm's on pictures in two brightnesses."""
    monkeypatch.chdir(tmp_path)
    draw_pictures(tmp_path / "pictures")
    config = configure(
        "model=timm", "model.name=test_vit", "model.weights=null", "data=imagefolder", "data.root=pictures"
    )
    torch.manual_seed(0)
    network = build_network(config.model, None, 2, 32)
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    splits = make_splits(read_samples(config.data), config.data)
    content = checkpoint_content(network, config, splits.class_to_idx)
    write_checkpoint(folder / "checkpoints" / "best.pt", content)
    facts = {"batch_size": 8, "mlflow_run_id": None, "run_id": "1a", "overrides": [], "engine": None}
    RunIdentity.of(config, DataIdentity.of(splits), **facts).write(folder)  # type: ignore[arg-type]
    (folder / "result.json").write_text(json.dumps({"status": "finished"}))
    return folder


class Eager:
    """A format that keeps its graph in memory, where exporters take seconds; its file holds the texts."""

    def __init__(self) -> None:
        self.calibration: list[np.ndarray] = []

    def write(
        self, graph: ClassifierGraph, metadata: ExportMetadata, file: Path, calibration: Iterable[np.ndarray]
    ) -> None:
        self._graph, self.calibration = graph, list(calibration)
        file.write_text(json.dumps(metadata.as_texts()))

    @torch.inference_mode()
    def compute(self, pixels: np.ndarray) -> np.ndarray:
        return self._graph(torch.from_numpy(pixels)).numpy()

    def open_file(self, file: Path, threads: int) -> OpenedFile:
        return OpenedFile(self.compute, json.loads(file.read_text()))


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Eager:
    module = Eager()
    monkeypatch.setitem(sys.modules, "eager", module)  # type: ignore[arg-type]
    monkeypatch.setitem(formats.FORMATS, "eager", Format("eager", ".eager", ("fp32", "int8")))
    return module


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and all that was said."""
    code = main(list(arguments))
    streams = capsys.readouterr()
    return code, streams.out + streams.err


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("eager", "model.eager"),
        pytest.param("onnx", "model.onnx", marks=pytest.mark.slow),
        pytest.param("openvino", "model.xml", marks=pytest.mark.slow),
        pytest.param("torch_export", "model.pt2", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_written_certified_and_loaded(
    name: str, file: str, run: Path, eager: Eager, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in formats.FORMATS[name].runtimes:
        pytest.importorskip(package)
    code, said = told(capsys, "run", "--format", name)
    path = Path(f"run/exports/{name}-fp32") / file
    assert code == 0, said
    assert str(path) in said
    assert "agreement 100.00 %: the same class for 6 of 6 validation images" in said
    certificate = json.loads(path.with_name("certificate.json").read_text())
    assert certificate["sha256"] == exported.digests_of(path)
    assert (certificate["holds"], certificate["agreement"], certificate["min_agreement"]) == (True, 1, 0.999)
    assert (certificate["format"], certificate["precision"], certificate["run"]) == (name, "fp32", "run")
    assert certificate["largest_difference"] < 1e-4
    assert exported.load_exported(path, trust=True).classes == ("dark", "light")


RULE = AbstainRule(0.9, 0.75, 0.5, 0.95)


def calibrate(run: Path) -> None:
    checkpoint, figures = run / "checkpoints" / "best.pt", {"log_loss": 0.5, "ece": 0.1, "adaptive_ece": 0.1}
    Calibration(checkpoint_digest(checkpoint), 6, 2.0, figures, figures, abstain=RULE).write(checkpoint)


def test_a_file_is_scored_as_its_run_and_has_its_calibration(
    run: Path, eager: Eager, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate(run)
    assert told(capsys, "run", "--format", "eager")[0] == 0
    path, own = run / "exports/eager-fp32/model.eager", ftexp.load("run").evaluate("pictures")
    monkeypatch.chdir(run / "checkpoints")  # the run is found by where the file lies
    classifier = ftexp.load(path)
    assert classifier.run == str(run)
    assert classifier.calibration is not None
    assert (classifier.calibration.temperature, classifier.calibration.abstain) == (2.0, RULE)
    found = classifier.evaluate("../../pictures")
    assert found.temperature == own.temperature == 2.0
    assert found.metrics["log_loss"] == pytest.approx(own.metrics["log_loss"], abs=1e-5)
    assert found.probabilities == pytest.approx(own.probabilities, abs=1e-5)
    assert np.abs(found.probabilities_at(1) - own.probabilities).max() > 1e-3, "the temperature changes something"


@pytest.mark.parametrize("most", [119.0, math.inf])
def test_a_file_refuses_the_images_that_its_run_refuses(
    run: Path, eager: Eager, capsys: pytest.CaptureFixture[str], most: float
) -> None:
    checkpoint = run / "checkpoints" / "best.pt"
    content = load_checkpoint(checkpoint)
    content["config"]["data"] |= {"max_megapixels": most / 1e6 if most < math.inf else "inf", "max_file_mib": "inf"}
    write_checkpoint(checkpoint, content)
    assert told(capsys, "run", "--format", "eager")[0] == 0
    Image.new("RGB", (10, 12)).save("small.png")
    answers = [ftexp.load(what).predict("small.png")[0] for what in ("run", "run/exports/eager-fp32/model.eager")]
    expected = "0.0 megapixels, above data.max_megapixels=0.000119" if most < math.inf else None
    assert [answer.error for answer in answers] == [expected, expected]


@pytest.mark.parametrize("number", [1, 2])
def test_a_file_of_before_has_the_usual_limits(
    run: Path, eager: Eager, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    assert told(capsys, "run", "--format", "eager")[0] == 0
    texts = json.loads(Path("run/exports/eager-fp32/model.eager").read_text())
    assert json.loads(texts.pop("limits")) == {"max_file_bytes": 64 * 2**20, "max_pixels": 89e6}
    before = ExportMetadata.from_texts({**texts, "ftexp_format": str(number)}, Path("model.eager"))
    assert before.limits == ImageLimits()


def test_the_test_images_of_a_run_are_counted_for_its_files_too(
    run: Path, eager: Eager, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert told(capsys, "run", "--format", "eager")[0] == 0
    path = "run/exports/eager-fp32/model.eager"
    on_data = evaluate_on_data(path, read_samples(ImageFolderConfig(source="imagefolder", root="pictures")), None, None)
    assert (on_data.engine["batch_size"], on_data.run is not None) == (8, True)
    assert "images are training images of the run: it was trained on them, so its scores are too good" in caplog.text
    assert "This is use 1 of this test set" in caplog.text
    assert evaluate_on_split(path, "val", (), None, None).reproduced is None


def test_a_planted_wrong_mean_ends_with_exit_code_1(
    run: Path, eager: Eager, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network_sees = PixelTransform.forward
    monkeypatch.setattr(PixelTransform, "forward", lambda self, image: 3 - 4 * network_sees(self, image))
    code, said = told(capsys, "run", "--format", "eager", "--min-agreement", "1", "--output", "here/m.eager")
    assert code == 1
    assert "here/m.eager is no copy of the run: they agree on" in said
    assert "--min-agreement asks for 100 %" in said
    assert json.loads(Path("here/certificate.json").read_text())["holds"] is False
    code, said = told(capsys, "run", "--format", "eager", "--output", "here/other.eager")
    assert code == 1
    assert "here/certificate.json is that of m.eager, and would be replaced" in said


def test_calibration_takes_training_images_of_all_classes(
    run: Path, eager: Eager, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--precision", "int8", "--min-agreement", "0", "--calibration-images", "4")
    code, said = told(capsys, "run", "--format", "eager", *options)
    assert code == 0, said
    assert len(eager.calibration) == 4
    assert sum(image.mean() > 128 for image in eager.calibration) == 2
    assert json.loads(Path("run/exports/eager-int8/certificate.json").read_text())["min_agreement"] == 0


def test_weights_alone_have_no_certificate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = told(capsys, "run/checkpoints/best.pt", "--format", "safetensors", "--output", "w.safetensors")
    assert code == 0
    assert "These are the weights alone: nothing can run the file, so there is no certificate." in said
    assert not Path("certificate.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --format openvino --precision int8", "--format openvino has no --precision int8"),
        ("run --format onnx --precision int8", "--precision int8 changes answers, .* --min-agreement SHARE, such as"),
        ("run --format onnx --min-agreement 99", "--min-agreement 99: it is a share from 0 to 1"),
        ("run --format onnx --calibration-images 0", "--calibration-images 0: it takes at least 1"),
        ("run --format onnx --output model.pt2", r"--output model\.pt2: files of --format onnx end in \.onnx"),
        ("nosuch --format onnx", "nosuch: there is no such run and no such file"),
        ("run --format onnx --data data.rot=x", "data.rot"),
        ("run --format onnx --data model.name=x", r"--data model\.name=x: settings of the data are given as data\.KEY"),
        ("alone/best.pt --format onnx", "alone/best.pt is not in the folder of a run.*--format safetensors"),
        ("run/digests.csv --format onnx", "damaged, or no checkpoint|not in the folder of a run"),
    ],
)
def test_wrong_input_is_one_message(
    arguments: str, message: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: name)
    (run.parent / "alone").mkdir()
    shutil.copy(run / "checkpoints" / "best.pt", "alone/best.pt")
    code, said = told(capsys, *arguments.split())
    assert code == 1
    assert said.count("\n") == 1, said
    assert re.search(message, said), said
    assert not list(Path(".").rglob("model*"))


def test_a_run_that_failed_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "result.json").write_text(json.dumps({"status": "failed"}))
    code, said = told(capsys, "run", "--format", "torch_export")
    assert code == 1
    assert "ended as failed" in said


def test_a_writer_that_is_not_installed(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    code, said = told(capsys, "run", "--format", "openvino")
    assert code == 1
    assert "needs onnx and onnxscript and openvino" in said
    assert "pip install 'ftexp[openvino]'" in said


def test_images_that_were_moved_or_lost(run: Path, eager: Eager, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pictures").rename("elsewhere")
    code, said = told(capsys, "run", "--format", "torch_export")
    assert code == 1
    assert "say where to: --data data.root=FOLDER" in said
    code, said = told(capsys, "run", "--format", "eager", "--data", "data.root=elsewhere")
    assert code == 0, said
    assert "6 of 6 validation images" in said
    lost = next(image.path for image in read_images(run) if image.split == "val")
    Path(lost.replace("pictures", "elsewhere", 1)).unlink()
    code, said = told(capsys, "run", "--format", "eager", "--data", "data.root=elsewhere")
    assert code == 1
    assert "1 of the 6 val images of the run in run are not there" in said


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nfrom ftexp.export import main\n"
        "try: main(['--help'])\nexcept SystemExit: assert 'torch' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "--min-agreement" in ended.stdout
