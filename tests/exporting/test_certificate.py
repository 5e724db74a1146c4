"""The certificate counts what differs, and fails where an exported file is not the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from colour_network import CLASSES, colours
from PIL import Image
from torch import Tensor

from ftexp.data.samples import Sample
from ftexp.exporting.certificate import MIN_AGREEMENT, certify
from ftexp.exporting.exported import ExportedEngine
from ftexp.exporting.graph import ClassifierGraph
from ftexp.inference.engine import NetworkEngine


class Table:
    """An engine whose probabilities stand in a table; an image is its row."""

    device, temperature, max_batch_mib = "cpu", 1.0, math.inf

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self._rows = np.array(rows, np.float32)

    def prepare(self, image: Image.Image) -> Tensor:
        return torch.tensor(image.getpixel((0, 0))[0])

    def probabilities(self, images: Sequence[Tensor]) -> np.ndarray:
        return self._rows[[int(image) for image in images]]


def samples(labels: str) -> list[Sample]:
    return [
        Sample(f"{number}.png", label, pixels=np.full((1, 1, 3), number, np.uint8))
        for number, label in enumerate(labels)
    ]


def test_figures_are_those_of_a_hand() -> None:
    run = Table([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]])
    file = Table([[0.9, 0.1], [0.4, 0.6], [0.1, 0.9], [0.5, 0.5]])
    seen: list[int] = []
    found = certify(run, file, ("a", "b"), samples("abbb"), 0.75, seen.append)
    assert (found.num_images, found.agreement, found.holds, seen) == (4, 0.75, True, [4])
    assert found.largest_difference == pytest.approx(0.2)
    assert found.mean_difference == pytest.approx((2 * 0.2 + 2 * 0.1) / 8)
    assert (found.accuracy, found.exported_accuracy) == (0.5, 0.75)
    (one,) = found.differences
    assert (one.path, one.label, one.exported_label) == ("1.png", "a", "b")
    assert (one.probability, one.exported_probability) == (pytest.approx(0.6), pytest.approx(0.6))
    assert found.seconds_per_image > 0
    assert found.exported_seconds_per_image > 0
    assert not replace(found, min_agreement=0.76).holds


def test_lines_for_people() -> None:
    names = "ab" * 30
    right, wrong = [[0.9, 0.1]] * 60, [[0.9, 0.1]] * 10 + [[0.3, 0.7]] * 50
    lines = certify(Table(right), Table(wrong), ("a", "b"), samples(names), 0.5).lines()
    assert lines[0] == "agreement 16.67 %: the same class for 10 of 60 validation images"
    assert lines[1] == "probabilities differ by 6.0e-01 at most, 5.0e-01 on average"
    assert lines[4] == "  10.png: a 0.900, exported b 0.700"
    assert lines[-1] == "  and 30 more"
    assert len(lines) == 4 + 20 + 1


def photographs() -> list[Sample]:
    """Noise in which one colour is stronger."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(60):
        pixels = rng.normal(110, 20, (12, 15, 3))
        pixels[..., number % 3] += 60
        found.append(Sample(f"{number}.png", CLASSES[number % 3], pixels=pixels.clip(0, 255).astype(np.uint8)))
    return found


def test_the_graph_holds_and_a_planted_wrong_mean_fails() -> None:
    network = colours()
    graph = ClassifierGraph(network, 2.0)

    def compute(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return graph(torch.from_numpy(pixels)).numpy()

    reference = NetworkEngine(network, 2.0, "cpu")
    right = certify(reference, ExportedEngine(compute), CLASSES, photographs(), MIN_AGREEMENT["fp32"])
    assert (right.agreement, right.holds) == (1, True)
    assert right.largest_difference < 1e-3
    graph.pixels.mean += torch.tensor([0.3, 0.0, 0.0]).view(1, 3, 1, 1)
    wrong = certify(reference, ExportedEngine(compute), CLASSES, photographs(), MIN_AGREEMENT["fp32"])
    assert not wrong.holds
    assert len(wrong.differences) > 5
    assert {one.label for one in wrong.differences} == {"red"}
