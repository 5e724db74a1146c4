"""The folder of a finished run, without a training."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Compose

from ftexp.models.catalogue import build_network
from ftexp.training.checkpoints.checkpoint import checkpoint_content, write_checkpoint


def write_finished_run(folder: Path, configure: Compose) -> Path:
    """Of a small network of timm's with random weights, whose classes are not in alphabetical order."""
    config = configure("model=timm", "model.name=test_efficientnet", "model.weights=null")
    network = build_network(config.model, None, 2, 64)
    (folder / "checkpoints").mkdir(parents=True)
    write_checkpoint(folder / "checkpoints" / "best.pt", checkpoint_content(network, config, {"dog": 0, "cat": 1}))
    (folder / "run.json").write_text("{}")
    (folder / "result.json").write_text(json.dumps({"status": "finished"}))
    return folder
