"""Which parameters get weight decay, and their roles: by the type of their layer, their shape, and timm's list.

Names alone are not enough: the usual rule (no decay where ``"bn" in name``) applies decay to all 49 BatchNorms of
torchvision's EfficientNet-B0, whose layers are called ``features.0.1``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ftexp.models.parametrized import Adapter

NORM_LAYERS: tuple[type[nn.Module], ...] = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

# Last parts of the names of parameters that are not weight matrices although they have two dimensions or more: tokens,
# and tables of absolute or relative positions. Suffixes stand for stages or axes (pos_embed1, pos_embed_x).
EMBEDDINGS = re.compile(
    r"(.*_)?(class_token|(cls|dist|reg)_token|pos_emb|pos_embed|pos_embedding|relative_position_bias_table"
    r"|rel_pos_[hw]|(height|width)_rel)(_?\d+|_win|_window|_[xy])?"
)
# Biases: bias, in_proj_bias, q_bias, and those of an LSTM; but not tables of relative positions (attention_biases).
BIASES = re.compile(r"(.*_)?bias(_[ih]h_l\d+(_reverse)?)?")
SCALES = re.compile(r"(layer_scale|gamma|alpha|beta|ls)(_?\d+)?")

# Layers whose weights are matrices or kernels, even if they have a single row.
MATRIX_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase)


# matrix: the weight of a linear layer or a convolution below the head; head: such a weight in the head; embedding: a
# token or an embedding table; vector: a bias, a scale, or a parameter of a norm layer.
Role = Literal["head", "matrix", "embedding", "vector"]
_ROLES: dict[str, Role] = {
    "weight matrix": "matrix",
    "embedding table": "embedding",
    "token or embedding": "embedding",
}


@dataclass(frozen=True, slots=True)
class DecayRule:
    """Whether a parameter gets weight decay.

    Attributes:
        decays: whether it does.
        reason: the kind of parameter that decided.
    """

    decays: bool
    reason: str

    def role(self, *, in_head: bool) -> Role:
        """The role of the parameter for optimizers that treat kinds of parameters differently, such as Muon.

        Args: in_head: whether the parameter belongs to the head.
        """
        role = _ROLES.get(self.reason, "vector")
        return "head" if in_head and role == "matrix" else role


def decay_rules(module: nn.Module) -> dict[str, DecayRule]:
    """The rule for every parameter of a network, by the parameter's full name."""
    own_list = getattr(module, "no_weight_decay", None)  # timm's list of parameters without decay
    listed = set(own_list()) if callable(own_list) else set()
    return {
        f"{path}.{name}" if path else name: _rule(layer, name, parameter, f"{path}.{name}" in listed or name in listed)
        for path, layer in module.named_modules()
        for name, parameter in layer.named_parameters(recurse=False)
    }


def is_norm_layer(layer: nn.Module) -> bool:
    """Whether a layer is a norm layer: one of torch's, or one of another library by the name of its class."""
    kind = type(layer).__name__.lower()
    return isinstance(layer, NORM_LAYERS) or ("norm" in kind and "normfree" not in kind)


def is_bias(leaf: str) -> bool:
    """Whether a parameter is a bias, judged by the last part of its name."""
    return BIASES.fullmatch(leaf) is not None


def _rule(layer: nn.Module, name: str, parameter: nn.Parameter, listed: bool) -> DecayRule:
    if is_norm_layer(layer):
        return DecayRule(False, "norm layer")
    if is_bias(name):
        return DecayRule(False, "bias")
    if parameter.ndim <= 1:
        return DecayRule(False, "one-dimensional")
    if SCALES.fullmatch(name):
        return DecayRule(False, "layer scale")
    if EMBEDDINGS.fullmatch(name) or listed:
        return DecayRule(False, "token or embedding")
    if isinstance(layer, nn.Embedding):
        return DecayRule(True, "embedding table")
    is_matrix = isinstance(layer, Adapter) or (isinstance(layer, MATRIX_LAYERS) and "weight" in name)
    if not is_matrix and sum(size > 1 for size in parameter.shape) <= 1:
        return DecayRule(False, "one-dimensional")
    return DecayRule(True, "weight matrix")
