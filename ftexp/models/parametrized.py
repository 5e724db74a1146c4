"""Adapted weights: a layer computes its weight from a frozen one, and checkpoints still hold plain weights.

``torch.nn.utils.parametrize`` makes ``weight`` a property of the layer. So code that reads the weight without calling
the layer, as attention and standardised convolutions do, gets the adapted one, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization, remove_parametrizations

_INSIDE = "parametrizations"


class Adapter(nn.Module):
    """Computes the weight of a layer from its frozen weight and from parameters of the adapter."""


def tensor_name(weight: str, own: str) -> str:
    """The full name of a parameter of an adapter.

    Args:
        weight: full name of the adapted weight.
        own: name of the parameter within the adapter.
    """
    path, _, leaf = weight.rpartition(".")
    return f"{path}.{_INSIDE}.{leaf}.0.{own}"


def adapt(module: nn.Module, adapters: Mapping[str, Adapter]) -> Callable[[], None]:
    """Adapt weights of a module.

    Args:
        module: the network.
        adapters: full name of a weight -> its adapter.

    Returns:
        A function that removes the adapters; the weights, and the order of their names, are then as before.
    """
    adapted: list[tuple[nn.Module, str, list[str]]] = []

    def undo() -> None:
        for layer, leaf, order in reversed(adapted):
            remove_parametrizations(layer, leaf, leave_parametrized=False)
            for name in order:
                layer._parameters[name] = layer._parameters.pop(name)

    for weight, adapter in adapters.items():
        path, _, leaf = weight.rpartition(".")
        layer = module.get_submodule(path)
        order = list(layer._parameters)
        register_parametrization(layer, leaf, adapter, unsafe=True)  # without a trial call
        adapted.append((layer, leaf, order))
    return undo


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict of the module with its adapters merged, under the names that it has without adapters."""
    state: dict[str, Tensor] = module.state_dict()
    for path in _adapted(module):
        state = {name: tensor for name, tensor in state.items() if not name.startswith(f"{path}.")}
        layer, leaf = path.split(f".{_INSIDE}.")
        state[f"{layer}.{leaf}"] = getattr(module.get_submodule(layer), leaf)
    return state


def adapters_state(module: nn.Module) -> dict[str, Tensor]:
    """What ``plain_state`` leaves out: the parameters of the adapters, and the frozen weights, by their full names."""
    paths = tuple(f"{path}." for path in _adapted(module))
    return {name: tensor for name, tensor in module.state_dict().items() if name.startswith(paths)}


def _adapted(module: nn.Module) -> Iterator[str]:
    for path, inner in module.named_modules(remove_duplicate=False):
        if isinstance(inner, ParametrizationList) and isinstance(inner[0], Adapter):
            yield path
