"""The table of networks: differences are those of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ftexp.data.samples import Sample
from ftexp.models.forward_cost import ForwardCost
from ftexp.probe.cross_validation import cross_validate
from ftexp.probe.features import Features
from ftexp.probed_models import ProbedModel, ProbedModels
from ftexp.report.model_comparison import write_comparison


def probed(given: str, distance: float) -> ProbedModel:
    """A network whose features are two clouds at this distance."""
    labels = torch.arange(60) % 2
    values = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    values[:, 0] += distance * labels
    samples = tuple(Sample(f"{i}.png", "ab"[label]) for i, label in enumerate(labels.tolist()))
    features = Features(values, labels, torch.arange(60), samples, ("a", "b"))
    folds = tuple(cross_validate(features, 3, 1, 0, ["accuracy"]))
    return ProbedModel(given, folds, 3, 224, ForwardCost(0.0123, 4.56, 7_890_000))


def test_differences_are_paired_and_the_best_leads(tmp_path: Path) -> None:
    found = (probed("weak", 0.5), probed("good", 2.0), probed("twin", 2.0))
    models = ProbedModels(found, {"gone": "no weights"}, np.arange(60))
    lines = write_comparison(tmp_path, models, "accuracy", seed=0)
    content = json.loads((tmp_path / "compare_models.json").read_text())
    good, twin, weak, gone = content["models"]
    assert [one["model"] for one in (good, twin, weak, gone)] == ["good", "twin", "weak", "gone"]
    assert good["accuracy"] < 1
    assert [twin[f"difference{part}"] for part in ("", "_low", "_high")] == [0, 0, 0]
    assert weak["difference"] == pytest.approx(weak["accuracy"] - good["accuracy"])
    assert weak["difference_low"] < weak["difference"] < weak["difference_high"]
    assert lines[1].startswith("good")
    assert lines[1].split()[-4:] == ["12.3", "4.6", "7.9", "M"]
    assert lines[4] == "gone is left out: no weights"
    assert "These images do not tell good, twin apart." in lines[5]
