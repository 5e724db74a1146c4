"""Checkpoints: plain tensors and plain data, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ftexp.config import Config, as_data
from ftexp.models.blocks import Network


def save_checkpoint(
    path: Path,
    network: Network,
    config: Config,
    *,
    class_to_idx: dict[str, int],
    epoch: int,
    metric: str,
    value: float,
) -> None:
    """Write the weights with all that is needed to use them; loads with ``torch.load(weights_only=True)``.

    Args:
        epoch: from 1 over the whole run.
        metric: name of the validation metric.
        value: its value with these weights.
    """
    content = {
        "model": {name: tensor.detach().cpu() for name, tensor in network.module.state_dict().items()},
        "model_name": network.name,
        "preprocessing": network.preprocessing.as_dict(),
        "class_to_idx": class_to_idx,
        "epoch": epoch,
        "metric": metric,
        "value": value,
        "config": as_data(config),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    torch.save(content, unfinished)
    os.replace(unfinished, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU as data; nothing in it is ever executed."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def restore_weights(path: Path, network: Network) -> None:
    """Put the weights of a checkpoint of this very network back into it."""
    network.module.load_state_dict(load_checkpoint(path)["model"])
