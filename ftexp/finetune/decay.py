"""Which parameters weight decay applies to: by the type of their layer, then by their shape, then by a list.

Names alone mislead: the seed chapter's rule (``"bn" in name``) decays all 49 BatchNorms of torchvision's
EfficientNet-B0, whose layers are called ``features.0.1``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

NORM_LAYERS: tuple[type[nn.Module], ...] = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

# Last parts of parameter names that hold no weight matrix although they have two dimensions or more.
EMBEDDINGS = (
    "class_token",
    "cls_token",
    "dist_token",
    "reg_token",
    "pos_embed",
    "pos_embedding",
    "relative_position_bias_table",
    "rel_pos_h",
    "rel_pos_w",
)
LAYER_SCALES = ("layer_scale", "gamma", "gamma1", "gamma2", "gamma_1", "gamma_2", "ls1", "ls2")


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
    if name in LAYER_SCALES:
        return DecayRule(False, "layer scale")
    if name in EMBEDDINGS or listed:
        return DecayRule(False, "token or embedding")
    return DecayRule(True, "weight matrix")
