"""What layers compute from their weights and keep for eval mode, such as the attention biases of LeViT in timm."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def drop_eval_caches(module: nn.Module) -> None:
    """Have every layer compute anew what it keeps for eval mode; to be called whenever weights were changed in place.

    Such layers drop what they keep when they are put into training mode, so all are, and then back: whatever the layer
    calls what it keeps. The modes are as before afterwards.
    """
    modes = [(child, child.training) for child in module.modules()]
    module.train()
    for child, mode in modes:
        child.training = mode


def load_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put all tensors of a state dict into a module that may have been used already."""
    module.load_state_dict(weights)
    drop_eval_caches(module)
