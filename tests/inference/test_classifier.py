"""A classifier answers as the network does, for anything that is an image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ftexp.data.augment.transforms import Normalizer, eval_transform
from ftexp.errors import ConfigError, DataError, DeviceError
from ftexp.inference.classifier import BATCHES_AHEAD, Classifier
from ftexp.inference.engine import NetworkEngine
from ftexp.models.blocks import Network

CLASSES = ("ant", "bee", "cat", "dog")
PICTURES = [np.random.default_rng(seed).integers(0, 256, (12, 10 + seed, 3)).astype(np.uint8) for seed in range(5)]


@pytest.fixture
def classifier(network: Network) -> Classifier:
    return Classifier(NetworkEngine(network, device="cpu"), CLASSES, network.preprocessing, "best.pt", "outputs/run")


@torch.inference_mode()
def probabilities(network: Network, pictures: list[np.ndarray], temperature: float = 1.0) -> torch.Tensor:
    transform = eval_transform(network.preprocessing)
    images = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])
    logits: torch.Tensor = network.module.eval()(Normalizer(network.preprocessing)(images))
    return (logits / temperature).softmax(1)


def test_probabilities_are_those_of_the_network(classifier: Classifier, network: Network) -> None:
    answers = classifier.predict(PICTURES, batch_size=2)
    expected = probabilities(network, PICTURES)
    np.testing.assert_allclose(np.stack([one.probabilities for one in answers]), expected, atol=1e-6)
    for one, row in zip(answers, expected, strict=True):
        assert one.label == CLASSES[int(row.argmax())]
        assert one.probability == pytest.approx(float(row.max()))
        assert one.top == ((one.label, one.probability),)


def test_a_temperature_divides_the_logits(network: Network) -> None:
    warm = Classifier(NetworkEngine(network, 2.5, "cpu"), CLASSES, network.preprocessing, "best.pt")
    expected = probabilities(network, PICTURES[:1], 2.5)[0]
    np.testing.assert_allclose(warm.predict(PICTURES[:1])[0].probabilities, expected, atol=1e-6)


def test_top_k_is_in_order_and_at_most_all_classes(classifier: Classifier) -> None:
    (one,) = classifier.predict(PICTURES[0], top_k=9)
    values = [probability for _, probability in one.top]
    assert sorted(CLASSES) == sorted(label for label, _ in one.top)
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1)


def test_an_unreadable_image_is_an_answer_with_an_error(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("hello")
    good, bad = classifier.predict([PICTURES[0], tmp_path / "note.png"])
    assert good.error is None
    assert (bad.label, bad.path) == (None, str(tmp_path / "note.png"))
    assert np.isnan(bad.probability)
    assert bad.error is not None
    assert str(tmp_path) not in bad.error


def test_only_unreadable_images(classifier: Classifier) -> None:
    assert [one.error for one in classifier.predict(["no.png", "nor.png"])] == ["there is no such file"] * 2


def test_the_table_has_a_row_per_image(classifier: Classifier) -> None:
    table = classifier.predict([PICTURES[0], "no.png"], top_k=2).to_pandas()
    names = ["path", "label", "probability", "label_2", "probability_2", *(f"p({name})" for name in CLASSES), "error"]
    assert list(table.columns) == names
    assert table["error"].tolist() == [None, "there is no such file"]
    assert table["path"].tolist() == [None, "no.png"]
    assert table.loc[0, "probability_2"] == pytest.approx(sorted(table.loc[0, names[5:9]])[-2])
    assert table.loc[1, "p(ant)":"p(dog)"].isna().all()


def test_the_table_of_no_image_has_its_columns(classifier: Classifier) -> None:
    table = classifier.predict([]).to_pandas()
    assert (len(table), list(table.columns)[:3], list(table.columns)[-1]) == (
        0,
        ["path", "label", "probability"],
        "error",
    )


def test_a_stream_reads_a_few_batches_ahead_and_no_more(classifier: Classifier) -> None:
    read = []

    def images() -> Iterator[np.ndarray]:
        for number in range(1000):
            read.append(number)
            yield PICTURES[number % 5]

    answers = classifier.stream(images(), batch_size=4)
    for _ in range(6):
        next(answers)
    assert len(read) <= 2 * 4 + BATCHES_AHEAD * 4
    answers.close()  # type: ignore[attr-defined]


def test_features_are_what_enters_the_head(classifier: Classifier, network: Network) -> None:
    features = classifier.features(PICTURES, batch_size=2)
    assert features.shape == (5, 6)
    with torch.inference_mode():
        logits = network.module.fc(torch.from_numpy(features))
    np.testing.assert_allclose(logits.softmax(1), probabilities(network, PICTURES), atol=1e-6)


def test_features_of_a_convolutional_head_are_pooled(network: Network) -> None:
    class Convolutional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.fc = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.fc(self.stem(images)).mean((2, 3))

    given: Any = SimpleNamespace(
        module=Convolutional(), heads=("fc",), preprocessing=network.preprocessing, name="c", num_classes=4
    )
    features = NetworkEngine(given, device="cpu").features([torch.zeros(3, 8, 8, dtype=torch.uint8)])
    assert features.shape == (1, 6)


def test_features_of_an_unreadable_image_are_refused(classifier: Classifier) -> None:
    with pytest.raises(DataError, match=r"no\.png: there is no such file"):
        classifier.features([PICTURES[0], "no.png"])


class Exported:
    """Stands for an exported file."""

    device, temperature, max_batch_mib = "cpu", 1.0, math.inf

    def prepare(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image))

    def probabilities(self, images: list[torch.Tensor]) -> np.ndarray:
        self.sizes = [*getattr(self, "sizes", []), len(images)]
        return np.tile(np.float32([0.1, 0.2, 0.3, 0.4]), (len(images), 1))


def test_an_exported_file_names_the_run_for_what_needs_the_network(network: Network) -> None:
    exported = Classifier(Exported(), CLASSES, network.preprocessing, "model.onnx", "outputs/run")
    assert exported.predict(PICTURES)[0].label == "dog"
    with pytest.raises(ConfigError, match=r"features needs the network, and model\.onnx .*load\('outputs/run'\)"):
        exported.features(PICTURES)
    with pytest.raises(ConfigError, match="module needs the network"):
        _ = exported.module
    with pytest.raises(ConfigError, match="device=cuda needs the network"):
        exported.predict(PICTURES, device="cuda")


def test_large_images_of_an_exported_file_come_in_small_batches(network: Network) -> None:
    engine = Exported()
    engine.max_batch_mib = 0.5  # two of 264 KiB fill it
    large = [np.zeros((300, 300, 3), np.uint8) for _ in range(5)]
    classifier = Classifier(engine, CLASSES, network.preprocessing, "model.onnx")
    assert len(classifier.predict([*large, *PICTURES[:1]], batch_size=32)) == 6
    assert engine.sizes == [2, 2, 2]


def test_sizes_and_devices_that_cannot_be(classifier: Classifier) -> None:
    with pytest.raises(ConfigError, match="top_k=0"):
        classifier.predict(PICTURES, top_k=0)
    with pytest.raises(ConfigError, match="batch_size=0"):
        classifier.predict(PICTURES, batch_size=0)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no CUDA device"):
            classifier.predict(PICTURES, device="cuda")


def test_the_process_is_left_as_it_was(network: Network) -> None:
    before = torch.get_rng_state()
    Classifier(NetworkEngine(network, device="cpu"), CLASSES, network.preprocessing, "best.pt").predict(PICTURES)
    assert torch.equal(torch.get_rng_state(), before)
