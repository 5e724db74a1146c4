"""What computes probabilities: the network itself, or an exported file in its own runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from ftexp.data.augment.transforms import Normalizer, eval_transform
from ftexp.errors import ConfigError
from ftexp.machine.accelerator import pinned
from ftexp.machine.runtime import Runtime, inference_runtime
from ftexp.models.blocks import Network
from ftexp.training.whole_batches import whole_batches

Floats = npt.NDArray[np.float32]


class Engine(Protocol):
    """Turns images into probabilities, in two steps: the first in threads that decode, the second for whole batches."""

    @property
    def device(self) -> str:
        """Where it computes, such as ``cpu`` or ``cuda:0``."""

    @property
    def temperature(self) -> float:
        """By which logits are divided before the softmax."""

    @property
    def max_batch_mib(self) -> float:
        """A batch has no further image once those in it take so much memory."""

    def prepare(self, image: Image.Image) -> Tensor:
        """What is done for each image by itself. Returns: uint8."""

    def probabilities(self, images: Sequence[Tensor]) -> Floats:
        """Of a batch of prepared images. Returns: float32 [B, C]."""


class NetworkEngine:
    """A network of torch, in eval mode, with the transforms that belong to its weights.

    Args:
        temperature: by which logits are divided before the softmax (Guo et al., 2017, arXiv 1706.04599).
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``, in fp32; or the runtime of a run, with its precision
            and memory format.

    Raises:
        DeviceError: when the device is not there.
    """

    max_batch_mib = math.inf  # prepared images all have the size of the network's input

    def __init__(self, network: Network, temperature: float = 1.0, device: str | Runtime = "auto") -> None:
        self.network = network
        self.temperature = temperature
        self.prepare = eval_transform(network.preprocessing)
        self._normalizer = Normalizer(network.preprocessing)
        self._runtime = self._place(device)

    @property
    def runtime(self) -> Runtime:
        """With what it computes."""
        return self._runtime

    @property
    def device(self) -> str:
        """Where the network is."""
        return str(self._runtime.device)

    def to(self, device: str) -> None:
        """Move the network, in place. Raises: DeviceError when the device is not there."""
        if device != self.device:
            self._runtime = self._place(device)

    @torch.inference_mode()
    def logits(self, images: Sequence[Tensor], batch_size: int = 0) -> Tensor:
        """What the network says of prepared images, B of them, not yet divided by the temperature.

        Args:
            images: as of ``prepare``.
            batch_size: images in a whole batch. Fewer are padded where a run pads them: kernels for another size round
                otherwise, so that a run's own scores would not come again to the last bit. 0: they stay as they are.

        Returns:
            float32 [B, C] on the device.
        """
        forward = whole_batches(self.network.module, None, batch_size, self._runtime)
        with self._runtime.autocast():
            logits: Tensor = forward(self._inputs(images))
        return logits.float()

    def probabilities(self, images: Sequence[Tensor]) -> Floats:
        """Of a batch of prepared images. Returns: float32 [B, C]."""
        probabilities: Floats = (self.logits(images) / self.temperature).softmax(1).cpu().numpy()
        return probabilities

    @torch.inference_mode()
    def features(self, images: Sequence[Tensor]) -> Floats:
        """What enters the last layer of the head, pooled over positions. Returns: float32 [B, D].

        Raises:
            ConfigError: when the network has several heads, or none of one layer.
        """
        layer = _last_layer(self.network)
        entered: list[Tensor] = []
        with layer.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0])), self._runtime.autocast():
            self.network.module(self._inputs(images))
        (features,) = entered
        if features.ndim == 4:
            features = features.mean(dim=(2, 3))
        pooled: Floats = features.float().cpu().numpy()
        return pooled

    def _inputs(self, images: Sequence[Tensor]) -> Tensor:
        # Prepared images have their channels last in memory, as they were decoded: so they are copied once.
        batch = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
        return self._normalizer(self._runtime.place_images(pinned(batch, self._runtime.device)))

    def _place(self, device: str | Runtime) -> Runtime:
        runtime = device if isinstance(device, Runtime) else inference_runtime(device)
        runtime.place(self.network.module.eval())
        return runtime


def _last_layer(network: Network) -> nn.Module:
    if len(network.heads) != 1:
        raise ConfigError(
            f"{network.name} has {len(network.heads)} heads, so there is no single place for features before them."
        )
    head = network.module.get_submodule(network.heads[0])
    layers = [layer for layer in head.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    if not layers:
        raise ConfigError(
            f"The head of {network.name}, {network.heads[0]}, has no linear layer to take features before."
        )
    return layers[-1]
