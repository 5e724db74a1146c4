"""torch.export: a ``.pt2`` file, run by torch without ftexp's code or the network's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from ftexp.exporting.graph import ClassifierGraph, quiet, trace
from ftexp.exporting.metadata import ExportMetadata
from ftexp.exporting.opened import Floats, OpenedFile, Pixels


def write(graph: ClassifierGraph, metadata: ExportMetadata, file: Path, calibration: Iterable[Pixels]) -> None:
    """Write a ``.pt2`` file.

    Raises:
        ConfigError: when torch cannot trace the network.
    """
    program = trace(graph, metadata.network)
    with quiet():
        torch.export.save(program, file, extra_files=metadata.as_texts())


def open_file(file: Path, threads: int) -> OpenedFile:
    """Open a file. This unpickles and evaluates what stands in it: only for files of one's own."""
    texts = {"ftexp_format": ""}  # a dictionary without entries would be left so
    with quiet():
        module = torch.export.load(file, extra_files=texts).module()

    @torch.inference_mode()
    def compute(pixels: Pixels) -> Floats:
        probabilities: Floats = module(torch.from_numpy(pixels)).numpy()
        return probabilities

    return OpenedFile(compute, texts)
