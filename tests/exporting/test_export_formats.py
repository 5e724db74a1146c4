"""An exported file answers as the network does, in its own runtime, and says what it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colour_network import CLASSES, colours, metadata_of
from PIL import Image
from safetensors import safe_open
from torch import nn

import ftexp
from ftexp.errors import CheckpointError, ConfigError, DeviceError
from ftexp.exporting import exported, formats
from ftexp.exporting.exported import digests_of, load_exported
from ftexp.exporting.formats import FORMATS, check_precision, module_of
from ftexp.exporting.graph import ClassifierGraph, trace
from ftexp.exporting.metadata import ExportMetadata
from ftexp.inference.classifier import Classifier
from ftexp.inference.engine import NetworkEngine

RUNNABLE = ["onnx", "torch_export", pytest.param("openvino", marks=pytest.mark.slow)]


def pictures() -> list[np.ndarray]:
    """Of three sizes, mixed."""
    rng = np.random.default_rng(0)
    sizes = [(20, 30), (9, 9), (20, 30), (11, 40), (9, 9), (20, 30), (1, 1)]
    return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """``written("onnx")`` is the file of that format; each is written once."""
    files: dict[tuple[str, str], Path] = {}

    def write(name: str, precision: str = "fp32") -> Path:
        if (name, precision) not in files:
            wanted, network = FORMATS[name], colours()
            for package in (*wanted.writers, *wanted.runtimes):
                pytest.importorskip(package, reason=f"pip install 'ftexp[{wanted.extra}]' brings it")
            file = tmp_path_factory.mktemp(name) / f"model{wanted.suffix}"
            graph = ClassifierGraph(network, 2.0, half=precision == "fp16" and name != "openvino")
            module_of(name).write(graph, metadata_of(network, precision), file, pictures())
            files[name, precision] = file
        return files[name, precision]

    return write


def of_the_network(images: list[np.ndarray]) -> np.ndarray:
    network = colours()
    answers = Classifier(NetworkEngine(network, 2.0, "cpu"), CLASSES, network.preprocessing, "best.pt").predict(images)
    return np.stack([one.probabilities for one in answers])


@pytest.mark.parametrize("name", RUNNABLE)
def test_answers_are_those_of_the_network(name: str, written: Any) -> None:
    answers = ftexp.load(written(name), trust=True).predict(pictures(), batch_size=5)
    np.testing.assert_allclose(
        np.stack([one.probabilities for one in answers]), of_the_network(pictures()), atol=2e-4
    )  # a gray level is one more or less in some places


@pytest.mark.parametrize(
    ("name", "precision", "gap"),
    [
        pytest.param("onnx", "fp16", 5e-3, marks=pytest.mark.slow),
        pytest.param("onnx", "int8", 5e-2, marks=pytest.mark.slow),
        pytest.param("openvino", "fp16", 5e-3, marks=pytest.mark.slow),
        pytest.param("torch_export", "fp16", 5e-3, marks=pytest.mark.slow),
    ],
)
def test_fewer_bits_are_nearly_the_network(name: str, precision: str, gap: float, written: Any) -> None:
    answers = load_exported(written(name, precision), trust=True).predict(pictures())
    found, expected = np.stack([one.probabilities for one in answers]), of_the_network(pictures())
    np.testing.assert_allclose(found, expected, atol=gap)
    assert np.abs(found - expected).max() > 1e-6


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_file_names_its_classes_transforms_and_run(name: str, written: Any) -> None:
    classifier, network = ftexp.load(written(name), trust=True), colours()
    assert (classifier.classes, classifier.run) == (CLASSES, "outputs/a run")
    assert classifier.preprocessing == network.preprocessing
    opened = module_of(name).open_file(written(name), 1)
    assert ExportMetadata.from_texts(opened.texts, written(name)) == metadata_of(network)


def test_the_graph_has_one_input_and_one_output_with_free_axes(written: Any) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(written("onnx"), providers=["CPUExecutionProvider"])
    ((image,), (probabilities,)) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", "height", "width", 3])
    assert (probabilities.name, probabilities.shape) == ("probabilities", ["batch", 3])
    assert probabilities.type == "tensor(float)"
    assert str(Path.cwd()).encode() not in written("onnx").read_bytes()  # where whose source files lie


def test_the_example_of_the_readme_runs_with_onnx_runtime_alone(
    written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = [part for part in text.split("\n\n") if "onnxruntime.InferenceSession" in part]
    code = "\n".join(line.removeprefix("    ") for line in block.splitlines())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(written("onnx").read_bytes())
    Image.fromarray(pictures()[0]).save("cat.png")
    (tmp_path / "cat.jpg").write_bytes((tmp_path / "cat.png").read_bytes())  # the very pixels
    names: dict[str, Any] = {}
    exec(code, names)
    expected = of_the_network(pictures()[:1])[0]
    assert names["classes"][names["probabilities"].argmax()] == CLASSES[expected.argmax()]
    np.testing.assert_allclose(names["probabilities"], expected, atol=2e-4)


def test_an_exported_file_has_no_network(written: Any) -> None:
    classifier = ftexp.load(written("onnx"))
    for ask in (lambda: classifier.features(pictures()), lambda: classifier.module):
        with pytest.raises(ConfigError, match=r"Load the run it was exported from: ftexp.load\('outputs/a run'\)"):
            ask()
    with pytest.raises(DeviceError, match="runs on the CPU; device=cuda is for runs"):
        ftexp.load(written("onnx"), device="cuda")


def test_a_file_that_can_execute_code_is_opened_by_consent_alone(written: Any) -> None:
    with pytest.raises(ConfigError, match=r"can execute code when it is loaded.*ftexp.load\('.*', trust=True\)"):
        ftexp.load(written("torch_export"))


def test_damaged_files_are_one_message_each(written: Any, tmp_path: Path) -> None:
    whole = written("onnx").read_bytes()
    for name in ("model.onnx", "model.pt2"):
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match="is damaged, or no file of --format"):
            ftexp.load(tmp_path / name, trust=True)


def test_a_file_that_has_changed_since_it_was_certified(written: Any, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(written("onnx").read_bytes())
    (tmp_path / "certificate.json").write_text(json.dumps({"sha256": digests_of(file)}))
    assert ftexp.load(file).classes == CLASSES
    content = bytearray(file.read_bytes())
    content[content.index(b"outputs/a run")] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: it is not the file that .*certificate\.json is of"):
        ftexp.load(file)


def test_a_graph_that_is_not_of_its_classes(written: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for classes, message in (
        ('["red", "green"]', r"gives \(1, 3\) for one image, and names 2 classes"),
        (None, r"was not written by python -m ftexp\.export"),
    ):
        model = onnx.load(written("onnx"))
        (prop,) = [one for one in model.metadata_props if one.key == "classes"]
        if classes is None:
            model.metadata_props.remove(prop)
        else:
            prop.value = classes
        onnx.save(model, tmp_path / "model.onnx")
        with pytest.raises(CheckpointError, match=message):
            ftexp.load(tmp_path / "model.onnx")


def test_weights_alone(tmp_path: Path) -> None:
    network = colours()
    file = tmp_path / "model.safetensors"
    module_of("safetensors").write(ClassifierGraph(network), metadata_of(network), file, ())
    with safe_open(file, "pt") as opened:
        assert set(opened.keys()) == set(network.module.state_dict())
        torch.testing.assert_close(opened.get_tensor("fc.weight"), network.module.fc.weight.data)
        assert json.loads(opened.metadata()["classes"]) == list(CLASSES)
    with pytest.raises(CheckpointError, match=r"holds weights alone, and no network.*model\.weights="):
        ftexp.load(file)


def test_a_runtime_that_is_not_installed(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written("onnx")
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"needs onnxruntime, which is not installed: pip install 'ftexp\[onnx\]'"):
        ftexp.load(file)


def test_a_precision_that_a_format_lacks() -> None:
    with pytest.raises(ConfigError, match=r"--format openvino has no --precision int8; it has fp32, fp16.*format onnx"):
        check_precision("openvino", "int8")


class Undecided(nn.Module):
    """Does one thing or another, depending on what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.mean(dim=(2, 3))
        return self.fc(means) if means.sum() > 0 else self.fc(-means)


def test_a_network_that_cannot_be_a_graph_is_named_with_the_way_out() -> None:
    network = colours()
    network.module = Undecided()
    with pytest.raises(ConfigError, match=r"colours cannot be exported as a graph: .*--format safetensors"):
        trace(ClassifierGraph(network), network.name)


def test_images_of_a_size_are_computed_in_parts_of_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "_MAX_PIXELS", 1200)
    shapes = []

    def compute(pixels: np.ndarray) -> np.ndarray:
        shapes.append(pixels.shape)
        return pixels[:, 0, 0, :].astype(np.float32)

    images = [torch.from_numpy(picture) for picture in pictures()]
    found = exported.ExportedEngine(compute).probabilities(images)
    np.testing.assert_array_equal(found, np.stack([picture[0, 0] for picture in pictures()]))
    assert shapes == [(2, 20, 30, 3), (1, 20, 30, 3), (2, 9, 9, 3), (1, 11, 40, 3), (1, 1, 1, 3)]
