"""Where a network looked: which places of an image spoke for a class.

The activations of a late layer times their gradients, summed over channels; what spoke against the class is left out.
For a convolutional network that ends in pooling and one linear layer this is Grad-CAM.

Source: HiResCAM (Draelos and Carin, 2020, arXiv 2011.08891); Grad-CAM (Selvaraju et al., 2017, arXiv 1610.02391).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ftexp.errors import ConfigError
from ftexp.models.blocks import HEAD, Network

# A layer whose places got no gradient, such as a transformer's last one when only the class token is read, is no use.
MIN_SHARE_WITH_GRADIENT = 0.5
# Class token, distillation token, registers.
MAX_OTHER_TOKENS = 16


def heat_maps(network: Network, images: Tensor, targets: Tensor) -> npt.NDArray[np.float32]:
    """How much each place spoke for a class, from 0 to 1 in every image.

    Args:
        network: in eval mode.
        images: float32 [B, 3, H, W], normalised, on the network's device.
        targets: int64 [B], the class that is asked about.

    Returns:
        float32 [B, G, G], G being the side of the layer's grid.

    Raises:
        ConfigError: for a network without a layer that keeps places apart.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        layer = find_layer(network, images[:1], targets[:1])
        attribution = _gradient_times_output(network, layer, images, targets)
    grids = _as_grids(attribution)
    assert grids is not None, "find_layer chooses layers with a grid"
    maps = grids.sum(dim=3).relu()
    highest = maps.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    result: npt.NDArray[np.float32] = (maps / highest).float().cpu().numpy()
    return result


def find_layer(network: Network, image: Tensor, target: Tensor) -> nn.Module:
    """The last layer of the backbone that keeps places apart, as wide as the backbone's output, and got a gradient.

    Args:
        image: float32 [1, 3, H, W], which requires a gradient.
        target: int64 [1].

    Raises:
        ConfigError: where there is none.
    """
    head = network.paths(HEAD)
    outputs: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad and _as_grids(output) is not None:
            outputs.append((module, output))

    with ExitStack() as hooks:
        for name, module in network.module.named_modules():
            if name and not any(name == path or name.startswith(f"{path}.") for path in head):
                hooks.enter_context(module.register_forward_hook(keep))
        logits = network.module(image)
    if outputs:
        gradients: Sequence[Tensor | None] = torch.autograd.grad(
            logits[0, target[0]], [output for _, output in outputs], allow_unused=True
        )
        last = _as_grids(outputs[-1][1])
        assert last is not None
        width = last.shape[3]
        for (module, _), gradient in zip(reversed(outputs), reversed(gradients), strict=True):
            grid = None if gradient is None else _as_grids(gradient)
            if grid is not None and grid.shape[3] == width and _reached(grid) > MIN_SHARE_WITH_GRADIENT:
                return module
    raise ConfigError(f"{network.name} has no layer that keeps the places of an image apart.")


def _gradient_times_output(network: Network, layer: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """The output of a layer times the gradient of the targets' logits, in the shape of the output."""
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        outputs.append(output)
        return output.clone()  # which what follows may change in place

    with layer.register_forward_hook(keep):
        logits = network.module(images)
    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), outputs[-1:])
    return gradient * outputs[-1].detach()


def _reached(gradient: Tensor) -> float:
    return float((gradient.abs().amax(dim=3) > 0).float().mean())


def _as_grids(output: Tensor) -> Tensor | None:
    """The output of a layer as [B, G, G, C]; None for one without places: vectors, or a single place.

    Convolutions have [B, C, G, G], some transformers [B, G, G, C], others [B, T, C] with tokens of no place at first.
    """
    if output.ndim == 4 and output.shape[2] == output.shape[3]:
        grid = output.permute(0, 2, 3, 1)
    elif output.ndim == 4 and output.shape[1] == output.shape[2]:
        grid = output
    elif output.ndim == 3:
        side = math.isqrt(output.shape[1])
        others = output.shape[1] - side**2
        if others > MAX_OTHER_TOKENS:
            return None
        grid = output[:, others:].reshape(output.shape[0], side, side, output.shape[2])
    else:
        return None
    return grid if grid.shape[1] > 1 else None
