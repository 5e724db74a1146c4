"""ONNX: written by torch's exporter, run by ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftexp.errors import ConfigError
from ftexp.exporting.graph import INPUT, OUTPUT, ClassifierGraph, first_line, quiet, trace
from ftexp.exporting.metadata import ExportMetadata
from ftexp.exporting.opened import Floats, OpenedFile, Pixels
from ftexp.exporting.quantization import PIXEL_NODES, quantized

AXES = ("batch", "height", "width")


def write(graph: ClassifierGraph, metadata: ExportMetadata, file: Path, calibration: Iterable[Pixels]) -> None:
    """Write an ONNX file.

    Raises:
        ConfigError: when torch cannot trace the network, ONNX has no operator for it, or the file would exceed 2 GB.
    """
    import onnx

    model = convert(graph, metadata.network)
    if metadata.precision.startswith("int8"):
        model = quantized(model, metadata, calibration)
    onnx.helper.set_model_props(model, metadata.as_texts())
    model.producer_name, model.producer_version = "ftexp", metadata.versions["ftexp"]
    try:
        onnx.save_model(model, file)
    except ValueError as error:  # of protobuf
        raise ConfigError(
            f"{metadata.network} is too large for one ONNX file, which ends at 2 GB. Take --format torch_export or "
            "--precision fp16."
        ) from error


def convert(graph: ClassifierGraph, name: str) -> Any:
    """The graph as an ``onnx.ModelProto``.

    Args:
        name: of the network, for messages.

    Raises:
        ConfigError: when torch cannot trace the network, or ONNX has no operator for it.
    """
    import torch

    program = trace(graph, name)
    try:
        with quiet(), _logs_off("torch.onnx", "onnxscript", "onnx_ir"), torch.no_grad():
            exported = torch.onnx.export(
                program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False
            )
            assert exported is not None
            model = exported.model_proto
    except Exception as error:  # the exporter raises nearly anything on an operator it does not know
        raise ConfigError(
            f"{name} cannot be exported to ONNX: {first_line(error.__cause__ or error)} --format torch_export can "
            "export it, and safetensors its weights."
        ) from error
    _name_parts(model)
    return model


def open_file(file: Path, threads: int) -> OpenedFile:
    """Open a file in ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def compute(pixels: Pixels) -> Floats:
        probabilities: Floats = session.run([OUTPUT], {INPUT: pixels})[0]
        return probabilities

    return OpenedFile(compute, dict(session.get_modelmeta().custom_metadata_map))


def _name_parts(model: Any) -> None:
    """Name the free axes and the nodes of the transform; leave out where in which source file a node comes from."""
    symbols = [dimension.dim_param for dimension in model.graph.input[0].type.tensor_type.shape.dim[:3]]
    names = dict(zip(symbols, AXES, strict=True))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in names:
                dimension.dim_param = names[dimension.dim_param]
        del value.metadata_props[:]
    for node in model.graph.node:
        if any(prop.key == "namespace" and "/pixels: " in prop.value for prop in node.metadata_props):
            node.name = f"{PIXEL_NODES}{node.name}"
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del model.graph.metadata_props[:]


@contextmanager
def _logs_off(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
