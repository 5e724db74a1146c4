"""Resamples the position embeddings of a user's file for another image size, as timm does with its own weights."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from ftexp.errors import WeightsError
from ftexp.models.blocks import under
from ftexp.models.weights_file import WeightsFile

logger = logging.getLogger(__name__)

# Last parts of the names of tables with one row per position, or per distance between two positions.
POSITIONS = re.compile(
    r"(pos_emb|pos_embed|patch_pos|pixel_pos|relative_position_bias_table|rel_pos_[hw]|(height|width)_rel"
    r"|attention_biases)(_?\d+|_win|_window|_[xy])?"
)
# Parts of the names of timm's vision transformers whose positions timm resamples bilinearly, unlike all others.
BILINEAR = ("flexi", "radio")


def resample_positions(module: nn.Module, file: WeightsFile, heads: tuple[str, ...], name: str) -> WeightsFile:
    """Resample position embeddings to the network's shapes, if no other tensor of the backbone differs in shape.

    Args:
        module: one of timm's networks, built for the size of the images.
        file: the tensors of the file under the network's names.
        heads: paths of the classifying layers.
        name: the name of the architecture.

    Returns:
        The file with resampled tables, or as it was.

    Raises:
        WeightsError: if only such tables differ in shape, and timm does not resample them.
    """
    own = module.state_dict()
    shared = [n for n in file.tensors if n in own and not under(n, heads)]
    other = [n for n in shared if own[n].shape != file.tensors[n].shape]
    if not other or not all(POSITIONS.fullmatch(n.rpartition(".")[2]) for n in other):
        return file  # loading it will say what does not fit
    first = other[0]
    sizes = f"{first}: {_shape(file.tensors[first])} in the file, {_shape(own[first])} in the network"
    prepared = _as_timm_prepares(module, file, name)
    fitting = {n: prepared[n] for n in other if n in prepared and prepared[n].shape == own[n].shape}
    if len(fitting) < len(other):
        raise WeightsError(
            f"{file.source} was trained at another image size, and timm does not resample the positions of {name} "
            f"({sizes}). Set model.image_size to the size that the file was trained at."
        )
    logger.info("weights %s: positions resampled for this image size (%s).", file.source, sizes)
    return file.renamed(file.tensors | fitting)


def _as_timm_prepares(module: nn.Module, file: WeightsFile, name: str) -> Mapping[str, Tensor]:
    """The tensors after timm's own conversion of checkpoints; empty if timm has none or it fails."""
    prepare = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if prepare is None:
        return {}
    if any(part in name for part in BILINEAR):
        prepare = partial(prepare, interpolation="bilinear", antialias=False)
    elif not file.antialias:
        prepare = partial(prepare, antialias=False)
    try:
        prepared: Mapping[str, Tensor] = prepare(dict(file.tensors), module)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return {}
    return prepared


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
