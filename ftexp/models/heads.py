"""The classifying layer: found by its path, replaced for the classes of the data."""

from __future__ import annotations

from torch import nn
from torchvision.ops import StochasticDepth

from ftexp.errors import ConfigError


def replace_head(module: nn.Module, path: str, num_classes: int) -> nn.Linear:
    """Put a new linear layer with torch's default initialisation where the old one was.

    Only the linear layer is replaced: a dropout or a norm before it stays.

    Args:
        module: the network; changed in place.
        path: module path of the layer, such as ``fc``, ``classifier.1`` or ``heads.head``.
        num_classes: width of the new layer.

    Raises:
        ConfigError: if there is no module at the path, or it is no linear layer.
    """
    try:
        old = module.get_submodule(path)
    except AttributeError:
        children = ", ".join(name for name, _ in module.named_children())
        raise ConfigError(f"model.head={path}: the network has no such module. At its top: {children}.") from None
    if not isinstance(old, nn.Linear):
        linear = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]
        raise ConfigError(
            f"model.head={path} is a {type(old).__name__}; it must be the last linear layer"
            + (f", which is probably {linear[-1]}." if linear else ".")
        )
    new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
    module.set_submodule(path, new)
    return new


def reset_head(module: nn.Module, paths: tuple[str, ...]) -> None:
    """Give heads that are already as wide as the data torch's default initialisation, as new linear layers have."""
    for path in paths:
        for child in module.get_submodule(path).modules():
            if isinstance(child, (nn.Linear, nn.Conv2d)):
                child.reset_parameters()


def set_drop_rate(module: nn.Module, head: str, rate: float, name: str) -> None:
    """Set the dropout that stands directly before the head, in the same sequence of layers.

    Raises:
        ConfigError: if the architecture has none there.
    """
    parent = module.get_submodule(head.rpartition(".")[0])
    before = []
    for child in parent.children():
        if child is module.get_submodule(head):
            break
        before.append(child)
    dropouts = [child for child in before if isinstance(child, nn.Dropout)]
    if not dropouts:
        raise ConfigError(f"model.drop_rate={rate}: {name} has no dropout before its head. Leave it null.")
    dropouts[-1].p = rate


def set_drop_path_rate(module: nn.Module, rate: float, name: str) -> None:
    """Scale stochastic depth so that the last block has ``rate``; the others keep their share of it.

    Raises:
        ConfigError: if the architecture has no stochastic depth.
    """
    layers = [child for child in module.modules() if isinstance(child, StochasticDepth)]
    largest = max((layer.p for layer in layers), default=0.0)
    if largest == 0.0:
        raise ConfigError(f"model.drop_path_rate={rate}: {name} has no stochastic depth. Leave it null.")
    for layer in layers:
        layer.p *= rate / largest
