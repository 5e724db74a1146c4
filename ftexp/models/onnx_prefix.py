"""The frozen prefix in ONNX Runtime, which computes on the CPU up to twice as fast as torch's own operators.

torch's TorchScript exporter writes the file: it takes a third of the time of the exporter that goes by torch.export.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ftexp.models.block_boundary import eval_for_trial, layout_of, trial_images
from ftexp.models.blocks import Network
from ftexp.models.prefix import Prefix

# The largest difference from torch's own operators, as a share of the largest output. Measured: up to 2e-6.
TOLERANCE = 1e-4
_INPUT, _OUTPUT = "images", "activations"
# The private function of torch by which the exporter switches on printing its graph.
_PRINTS_GRAPH = "_jit_set_onnx_log_enabled"


class ExportError(RuntimeError):
    """The prefix of a network cannot be run by ONNX Runtime; the message says why."""


class OnnxPrefix:
    """Maps images to the activations that enter the first trainable block, as ``Prefix`` does, on the CPU in fp32.

    Args:
        content: of the file that ``export_prefix`` made.
        layout: the dimensions of the activations from the largest stride to the smallest.
    """

    def __init__(self, content: bytes, layout: tuple[int, ...]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.use_deterministic_compute = torch.are_deterministic_algorithms_enabled()
        options.log_severity_level = 3  # errors alone
        # Between two batches its threads would wait in a loop, on the cores that decode images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._back = tuple(layout.index(dim) for dim in range(len(layout)))

    def __call__(self, images: Tensor) -> Tensor:
        """Activations [B, ...] of images [B, 3, H, W], in the network's own memory layout."""
        (activations,) = self._session.run([_OUTPUT], {_INPUT: images.contiguous().numpy()})
        return torch.from_numpy(activations).permute(self._back)


def export_prefix(network: Network, prefix: Prefix) -> tuple[bytes, tuple[int, ...]]:
    """Write the prefix as an ONNX file, and compare its outputs with those of torch for other batches.

    Args:
        network: the network, on the CPU in fp32.
        prefix: what ``split`` made of it.

    Returns:
        The content of the file, and the layout of the activations for ``OnnxPrefix``.

    Raises:
        ExportError: if torch cannot export it, or its outputs differ by more than ``TOLERANCE``.
    """
    with torch.no_grad(), eval_for_trial(network.module):
        one, two = trial_images(network)
        layout = layout_of(prefix(two))
        content = _exported(_PrefixModule(network.module, prefix, layout), two)
        try:
            written = OnnxPrefix(content, layout)
            difference = max(_difference(prefix(images), written(images)) for images in (one, torch.cat([one, two])))
        except Exception as error:  # whatever ONNX Runtime raises on a file that it cannot run
            raise ExportError(f"ONNX Runtime cannot run it ({_first_line(error)})") from error
    if not difference <= TOLERANCE:  # or not a number
        raise ExportError(f"its outputs differ by {difference:.0e} of the largest, and {TOLERANCE:.0e} is allowed")
    return content, layout


class _PrefixModule(nn.Module):
    """The prefix as a module, with activations in the order of memory: channels last where the network has it so."""

    def __init__(self, module: nn.Module, prefix: Prefix, layout: tuple[int, ...]) -> None:
        super().__init__()
        self.module = module  # the exporter looks for the weights here
        self._prefix = prefix
        self._layout = layout
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self._prefix.run(images).permute(self._layout)


def _exported(module: nn.Module, images: Tensor) -> bytes:
    file = io.BytesIO()
    axes = {_INPUT: {0: "batch"}, _OUTPUT: {0: "batch"}}
    try:
        with _quiet(), _attention_of_parts():
            torch.onnx.export(
                module,
                (images,),
                file,  # type: ignore[arg-type]  # this exporter writes to memory, too
                dynamo=False,
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                dynamic_axes=axes,
            )
    except Exception as error:  # the exporter raises nearly anything on an operator it does not know
        raise ExportError(f"torch cannot export it ({_first_line(error)})") from error
    return file.getvalue()


@contextmanager
def _attention_of_parts() -> Iterator[None]:
    """Attention as single operators: ONNX knows no operator for the fused one."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, which no user can change, and no graph: on an error, the exporter would switch on printing it."""
    logger = logging.getLogger("torch.onnx")
    level, switch = logger.level, getattr(torch._C, _PRINTS_GRAPH, _nothing)
    logger.setLevel(logging.ERROR)
    setattr(torch._C, _PRINTS_GRAPH, _nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        setattr(torch._C, _PRINTS_GRAPH, switch)
        logger.setLevel(level)


def _nothing(*_: Any) -> None:
    return None


def _difference(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        return float("inf")
    return float((expected - found).abs().max() / expected.abs().max())


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
