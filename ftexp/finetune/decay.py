"""Which parameters weight decay applies to: by the type of their layer, then by their shape, then by a list.

Names alone mislead: the seed chapter's rule (``"bn" in name``) decays all 49 BatchNorms of torchvision's
EfficientNet-B0, whose layers are called ``features.0.1``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

NORM_LAYERS: tuple[type[nn.Module], ...] = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

# Last parts of parameter names that hold no weight matrix although they have two dimensions or more; networks with
# several stages number them (pos_embed1).
EMBEDDINGS = re.compile(
    r"(.*_)?(class_token|(cls|dist|reg)_token|pos_embed|pos_embedding|relative_position_bias_table|rel_pos_[hw])_?\d*"
)
LAYER_SCALES = re.compile(r"layer_scale(_?\d+)?|gamma(_?\d+)?|ls\d+")

# Layers whose weight is a matrix even where it has a single row.
MATRIX_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, slots=True)
class DecayRule:
    """Whether a parameter decays, and the rule that decided."""

    decays: bool
    reason: str


def decay_rules(module: nn.Module) -> dict[str, DecayRule]:
    """The rule for every parameter of a network, by its full name."""
    own_list = getattr(module, "no_weight_decay", None)  # timm's networks name what must not decay
    listed = set(own_list()) if callable(own_list) else set()
    return {
        f"{path}.{name}" if path else name: _rule(layer, name, parameter, f"{path}.{name}" in listed or name in listed)
        for path, layer in module.named_modules()
        for name, parameter in layer.named_parameters(recurse=False)
    }


def _rule(layer: nn.Module, name: str, parameter: nn.Parameter, listed: bool) -> DecayRule:
    if isinstance(layer, NORM_LAYERS) or "norm" in type(layer).__name__.lower():
        return DecayRule(False, "norm layer")
    if name == "bias" or name.endswith("_bias"):
        return DecayRule(False, "bias")
    if parameter.ndim <= 1:
        return DecayRule(False, "one-dimensional")
    if LAYER_SCALES.fullmatch(name):
        return DecayRule(False, "layer scale")
    if EMBEDDINGS.fullmatch(name) or listed:
        return DecayRule(False, "token or embedding")
    if not isinstance(layer, MATRIX_LAYERS) and sum(size > 1 for size in parameter.shape) <= 1:
        return DecayRule(False, "one-dimensional")
    return DecayRule(True, "weight matrix")
