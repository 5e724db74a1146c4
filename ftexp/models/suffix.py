"""The trainable suffix of a network that ``split`` has cut: from cached activations to logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ftexp.models.block_boundary import Boundary, Template, layout_of


class Suffix:
    """Maps activations to logits, with the network's own parameters and the present modes of its modules."""

    def __init__(self, boundary: Boundary) -> None:
        self._boundary = boundary
        self._twins: dict[nn.Module, nn.Module] = {}
        self._batch = 0
        self._activations: Tensor | None = None
        self._calls: dict[nn.Module, int] = {}
        self._targets = {*boundary.answers, boundary.entry}
        self._root = self._twin(boundary.module)

    def __call__(self, activations: Tensor) -> Tensor:
        """Logits [B, C] of activations as the prefix returns them; gradients reach the trainable blocks."""
        boundary = self._boundary
        activations = boundary.unpacked(activations)
        for original, twin in self._twins.items():
            twin.training = original.training
        self._batch = activations.shape[0] // boundary.crossing.per_image[0]
        self._calls.clear()
        if layout_of(activations) != boundary.layout:
            activations = _in_layout(activations, boundary.layout)
        self._activations = activations.clone() if boundary.entry_writes else activations
        try:
            logits: Tensor = self._root.forward(self._unknown(boundary.images))
        finally:
            self._activations = None
            boundary.clear()
        return logits

    def _twin(self, module: nn.Module) -> nn.Module:
        """A shallow copy of a module if it or a module below it is replaced; else the module itself."""
        if module in self._twins:
            return self._twins[module]
        if not any(child in self._targets for child in module.modules()):
            return module
        twin = self._twins[module] = type(module).__new__(type(module))
        twin.__dict__.update(module.__dict__)  # copy.copy refuses layers whose weights are adapted
        twin.__dict__.pop("_compiled_call_impl", None)
        if module in self._boundary.answers:
            twin.__dict__["forward"] = self._answering(module)
            twin.__dict__["_forward_hooks"] = {}
            twin.__dict__["_forward_pre_hooks"] = {}
        elif module is self._boundary.entry:
            twin.__dict__["forward"] = self._entering(module)
        else:
            twin.__dict__["_modules"] = {
                name: None if child is None else self._twin(child) for name, child in module._modules.items()
            }
        return twin

    def _answering(self, module: nn.Module) -> Callable[..., Any]:
        answers = self._boundary.answers[module]

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = self._calls.get(module, 0)
            self._calls[module] = call + 1
            if call >= len(answers):  # called again after the boundary: its real output is needed
                return module(*args, **kwargs)
            return tree_map(
                lambda leaf: self._unknown(leaf) if isinstance(leaf, Template) else leaf,
                answers[call],
                is_leaf=lambda leaf: isinstance(leaf, Template),
            )

        return forward

    def _entering(self, module: nn.Module) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            # Looked up at every call, because the forward of a layer can be replaced during training.
            if self._activations is None:  # called again: its input comes from the suffix itself
                return module.forward(*args, **kwargs)
            leaves, structure = tree_flatten((args, kwargs))
            leaves[self._boundary.leaf], self._activations = self._activations, None
            args, kwargs = tree_unflatten(leaves, structure)
            return module.forward(*args, **kwargs)

        return forward

    def _unknown(self, template: Template) -> Tensor:
        return template.unknown(self._batch, self._device, self._boundary.dense)

    @property
    def _device(self) -> torch.device:
        return next(self._boundary.module.parameters()).device


def _in_layout(tensor: Tensor, layout: tuple[int, ...]) -> Tensor:
    back = tuple(layout.index(dim) for dim in range(len(layout)))
    return tensor.permute(layout).contiguous().permute(back)
