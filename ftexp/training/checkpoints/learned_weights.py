"""The weights that a phase may change, apart from all others, which the first phase has from the pretrained weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ftexp.errors import CheckpointError
from ftexp.models.blocks import Network, under
from ftexp.models.parametrized import plain_state
from ftexp.models.tensor_digest import add_tensors

Weights = dict[str, Tensor]


def split_weights(network: Network, learning: Iterable[str]) -> tuple[Weights, Weights]:
    """The weights of the blocks of which something learns, under their plain names, and those of all others."""
    paths = tuple(path for block in learning for path in network.paths(block))
    weights = plain_state(network.module)
    learned = {name: tensor for name, tensor in weights.items() if under(name, paths)}
    return learned, {name: tensor for name, tensor in weights.items() if name not in learned}


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """A digest of names and values."""
    digest = hashlib.blake2b(digest_size=16)
    add_tensors(digest, sorted(weights.items()))
    return digest.hexdigest()


def whole_weights(content: Mapping[str, Any], network: Network, file: Path) -> Weights:
    """The weights in ``last.pt``, with those that it leaves out from the network as it was built.

    Args:
        content: of the file.
        network: with the weights that its run began with.
        file: for the message.

    Raises:
        CheckpointError: if what the file leaves out was different when the run began.
    """
    learned: Weights = content["model"]
    if content.get("frozen") is None:
        return learned
    others = {name: tensor for name, tensor in plain_state(network.module).items() if name not in learned}
    if digest_of(others) != content["frozen"]:
        raise CheckpointError(
            f"{file} does not repeat the frozen weights, and those that model.weights gives now are not those that the "
            "run began with. Put these back, and install the versions in the run's run.json, or start a new run."
        )
    return {**others, **learned}
