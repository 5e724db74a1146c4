"""Resamples the position embeddings of torchvision's vision transformers for another image size."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from ftexp.errors import ConfigError
from ftexp.models.weights_file import WeightsFile

logger = logging.getLogger(__name__)

POSITIONS = "encoder.pos_embedding"


def take_image_size(module: nn.Module, image_size: int | None, name: str) -> None:
    """Give a vision transformer the positions of another image size; other networks are left as they are.

    Args:
        module: one of torchvision's networks.
        image_size: side of the images in pixels; None: the size that the network was built for.
        name: the name of the architecture.

    Raises:
        ConfigError: if the image cannot be cut into whole patches.
    """
    if not isinstance(module, VisionTransformer) or image_size in (None, module.image_size):
        return
    assert image_size is not None
    if image_size % module.patch_size:
        raise ConfigError(
            f"{name} cannot take images of {image_size} x {image_size} pixels: it cuts them into patches of "
            f"{module.patch_size} pixels. Set model.image_size to a multiple of {module.patch_size}."
        )
    table = _resampled(module.encoder.pos_embedding.detach(), image_size, module.patch_size)
    module.encoder.pos_embedding = nn.Parameter(table)
    module.image_size, module.seq_length = image_size, table.shape[1]


def resample_file(module: nn.Module, file: WeightsFile) -> WeightsFile:
    """Resample the position embeddings of a file to those of a vision transformer.

    Args:
        module: one of torchvision's networks, built for the size of the images.
        file: the tensors of the file under the network's names.

    Returns:
        The file with a resampled table, or as it was.
    """
    table = file.tensors.get(POSITIONS)
    if not isinstance(module, VisionTransformer) or table is None:
        return file
    own = module.encoder.pos_embedding
    is_grid = table.dim() == 3 and math.isqrt(table.shape[1] - 1) ** 2 == table.shape[1] - 1
    if table.shape == own.shape or not is_grid or table.shape[2] != own.shape[2]:
        return file  # loading it will say what does not fit
    resampled = _resampled(table, module.image_size, module.patch_size)
    logger.info(
        "weights %s: positions resampled for this image size (%s: %d in the file, %d in the network).",
        file.source,
        POSITIONS,
        table.shape[1],
        resampled.shape[1],
    )
    return file.renamed(file.tensors | {POSITIONS: resampled})


def _resampled(table: Tensor, image_size: int, patch_size: int) -> Tensor:
    """A table [1, 1 + N, D] of a class token and N positions, with one position per patch of the image instead."""
    state = OrderedDict({POSITIONS: table.float()})
    resampled: Tensor = interpolate_embeddings(image_size, patch_size, state)[POSITIONS]
    return resampled.to(table.dtype)
