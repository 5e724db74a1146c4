"""Weights and activations of 8 bits, by ONNX Runtime's quantization; the transform of the pixels stays as it is."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ftexp.errors import ConfigError
from ftexp.exporting.graph import INPUT
from ftexp.exporting.metadata import ExportMetadata
from ftexp.exporting.opened import Pixels

# Names of the nodes that turn pixels into what the network sees begin with this; they are not quantized.
PIXEL_NODES = "pixels/"
_PRODUCTS = ["MatMul", "Gemm"]


def quantized(model: Any, metadata: ExportMetadata, calibration: Iterable[Pixels]) -> Any:
    """An ``onnx.ModelProto`` whose convolutions and products of matrices compute in 8 bits.

    With ``int8`` the ranges of activations are those met on ``calibration``, and are fixed; with ``int8_dynamic`` they
    are measured in every batch, and only products of matrices are quantized.

    Raises:
        ConfigError: where there would be nothing to quantize.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    dynamic = metadata.precision == "int8_dynamic"
    with tempfile.TemporaryDirectory() as folder:
        given, fused, written = (Path(folder) / f"{name}.onnx" for name in ("given", "fused", "int8"))
        onnx.save_model(model, given)
        logging.disable(logging.WARNING)  # it logs advice to users of its own on the root logger
        try:
            quant_pre_process(given, fused, skip_symbolic_shape=True)
            nodes = [node for node in onnx.load(fused).graph.node if node.op_type in (*_PRODUCTS, "Conv")]
            left = [node.name for node in nodes if node.name.startswith(PIXEL_NODES)]
            if dynamic:
                _check_products(sum(node.op_type in _PRODUCTS for node in nodes) - len(left), metadata.network)
                quantize_dynamic(fused, written, _PRODUCTS, weight_type=QuantType.QInt8, nodes_to_exclude=left)
            else:
                quantize_static(
                    fused,
                    written,
                    _Images(calibration),
                    QuantFormat.QDQ,
                    op_types_to_quantize=[*_PRODUCTS, "Conv"],
                    per_channel=True,
                    nodes_to_exclude=left,
                )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(written)


class _Images:
    """What ONNX Runtime calls a ``CalibrationDataReader``."""

    def __init__(self, images: Iterable[Pixels]) -> None:
        self._images: Iterator[Pixels] = iter(images)

    def get_next(self) -> dict[str, Pixels] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image[None]}


def _check_products(number: int, network: str) -> None:
    if number < 2:
        raise ConfigError(
            f"--precision int8_dynamic quantizes products of matrices, and {network} has none but its head. Take "
            "--precision int8, which quantizes convolutions, too."
        )
