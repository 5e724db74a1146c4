"""OpenVINO: an ``.xml`` file with the graph and a ``.bin`` file with the weights beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from ftexp.exporting.graph import ClassifierGraph
from ftexp.exporting.metadata import ExportMetadata
from ftexp.exporting.opened import Floats, OpenedFile, Pixels

# Under this name the texts stand in the file's rt_info.
SECTION = "ftexp"


def write(graph: ClassifierGraph, metadata: ExportMetadata, file: Path, calibration: Iterable[Pixels]) -> None:
    """Write the two files, by way of ONNX; with ``fp16`` the weights have 16 bits.

    Raises:
        ConfigError: when torch cannot trace the network, or ONNX has no operator for it.
    """
    import onnx
    import openvino

    from ftexp.exporting.onnx_file import convert

    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "model.onnx"
        onnx.save_model(convert(graph, metadata.network), converted)
        # Not openvino.convert_model, which reports its use over the network.
        model = openvino.Core().read_model(converted)
        for name, text in metadata.as_texts().items():
            model.set_rt_info(text, [SECTION, name])
        openvino.save_model(model, file, compress_to_fp16=metadata.precision == "fp16")


def open_file(file: Path, threads: int) -> OpenedFile:
    """Open the files in OpenVINO, on the CPU, in float32: by itself it takes bfloat16 where a processor has it."""
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    texts = {str(name): str(text) for name, text in model.get_rt_info(SECTION).value.items()}
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads})

    def compute(pixels: Pixels) -> Floats:
        probabilities: Floats = compiled(pixels)[0].copy()
        return probabilities

    return OpenedFile(compute, texts)
