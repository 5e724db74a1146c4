"""The whole of a classifier as one module, and that module as a program of torch, whatever the images' size."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ftexp.errors import ConfigError
from ftexp.exporting.pixels import PixelTransform
from ftexp.models.blocks import Network

INPUT, OUTPUT = "image", "probabilities"


class ClassifierGraph(nn.Module):
    """Decoded pixels in, probabilities out.

    Args:
        network: in eval mode; it is copied to the CPU.
        temperature: by which logits are divided before the softmax.
        half: the network computes in float16; pixels, logits and probabilities stay float32.
    """

    def __init__(self, network: Network, temperature: float = 1.0, *, half: bool = False) -> None:
        super().__init__()
        self.pixels = PixelTransform(network.preprocessing)
        module = copy.deepcopy(network.module).cpu().eval().requires_grad_(False)
        self.network = module.half() if half else module.float()
        self._dtype = torch.float16 if half else torch.float32
        self._temperature = temperature

    def forward(self, image: Tensor) -> Tensor:
        """Args: RGB pixels, uint8 [N, H, W, 3]. Returns: float32 [N, C]."""
        logits: Tensor = self.network(self.pixels(image).to(self._dtype)).float()
        return (logits / self._temperature).softmax(1)


def trace(graph: ClassifierGraph, name: str) -> ExportedProgram:
    """The graph as a program in which the number of images, their height and their width are free.

    Args:
        name: of the network, for messages.

    Raises:
        ConfigError: when torch.export cannot trace the network.
    """
    # Sides that no other dimension of a network has, so that nothing is taken for equal to them.
    example = torch.zeros(2, 331, 347, 3, dtype=torch.uint8)
    free = {axis: Dim(name, min=1) for axis, name in enumerate(("batch", "height", "width"))}
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(graph, (example,), dynamic_shapes={INPUT: free}, strict=False)
    except Exception as error:  # whatever a network's own code raises on symbols in the place of numbers
        raise ConfigError(
            f"{name} cannot be exported as a graph: torch.export stops with {type(error).__name__}: "
            f"{first_line(error)} Its weights alone can be: --format safetensors."
        ) from error


def first_line(error: BaseException) -> str:
    """What an error says, in a sentence."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if text.endswith(".") else f"{text}."


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings: exporters warn of their own insides, which no user can change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
