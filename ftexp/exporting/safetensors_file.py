"""safetensors: the weights alone, by their plain names, for programs that build the network and its transforms."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ftexp.errors import CheckpointError
from ftexp.exporting.graph import ClassifierGraph
from ftexp.exporting.metadata import ExportMetadata
from ftexp.exporting.opened import OpenedFile, Pixels


def write(graph: ClassifierGraph, metadata: ExportMetadata, file: Path, calibration: Iterable[Pixels]) -> None:
    """Write the weights, with the classes and the transforms as texts."""
    from safetensors.torch import save_file

    tensors = {name: tensor.clone().contiguous() for name, tensor in graph.network.state_dict().items()}
    save_file(tensors, file, metadata.as_texts())


def open_file(file: Path, threads: int) -> OpenedFile:
    """Raises: CheckpointError, always: there is nothing that could be run."""
    raise CheckpointError(
        f"{file} holds weights alone, and no network. Load the run it was exported from, or begin a run with it: "
        f"model.weights={file}."
    )
