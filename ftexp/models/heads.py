"""Finds the classifying layer by its path, and replaces it for the classes of the data."""

from __future__ import annotations

from torch import nn
from torchvision.ops import StochasticDepth

from ftexp.errors import ConfigError


def replace_head(module: nn.Module, path: str, num_classes: int) -> nn.Linear:
    """Replace a linear layer by a new one with torch's default initialisation.

    Only the linear layer is replaced: dropout and norm layers before it stay.

    Args:
        module: the network; changed in place.
        path: module path of the layer, such as ``fc``, ``classifier.1`` or ``heads.head``.
        num_classes: number of outputs of the new layer.

    Returns:
        The new layer.

    Raises:
        ConfigError: if there is no module at the path, or it is not a linear layer.
    """
    try:
        old = module.get_submodule(path)
    except AttributeError:
        children = ", ".join(name for name, _ in module.named_children())
        raise ConfigError(
            f"model.head={path}: the network has no such module. Its top-level modules: {children}."
        ) from None
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
    """Initialise heads that already have one output per class with torch's default, as new linear layers are."""
    for path in paths:
        for child in module.get_submodule(path).modules():
            if isinstance(child, (nn.Linear, nn.Conv2d)):
                child.reset_parameters()


def set_drop_rate(module: nn.Module, head: str, rate: float, name: str) -> None:
    """Set the rate of the last dropout before the head, in the same container.

    Args:
        module: the network; changed in place.
        head: module path of the classifying layer.
        rate: probability of zeroing an element.
        name: the name of the architecture, for the message.

    Raises:
        ConfigError: if there is no such dropout.
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
    """Scale the rates of stochastic depth so that the largest one is ``rate``.

    Args:
        module: the network; changed in place.
        rate: the largest rate; the others keep their ratio to it.
        name: the name of the architecture, for the message.

    Raises:
        ConfigError: if the architecture has no stochastic depth.
    """
    layers = [child for child in module.modules() if isinstance(child, StochasticDepth)]
    largest = max((layer.p for layer in layers), default=0.0)
    if largest == 0.0:
        raise ConfigError(f"model.drop_path_rate={rate}: {name} has no stochastic depth. Leave it null.")
    for layer in layers:
        layer.p *= rate / largest
