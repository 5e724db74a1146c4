"""Changes of the network for the duration of a phase, such as low-rank adapters (LoRA).

A change is made when a phase begins and undone when the phase ends, also after an error. The checkpoints of the phase
hold the merged weights, under the names that the network has without the change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ftexp.config import Config, PhaseConfig
from ftexp.errors import ConfigError
from ftexp.finetune.candidates import Candidate, chosen_by_patterns
from ftexp.models.blocks import Network
from ftexp.models.parametrized import Adapter, adapt, tensor_name


class Change(Protocol):
    """A change of the network for the duration of a phase."""

    @property
    def learning(self) -> frozenset[str]:
        """Full names, in the changed network, of the trainable parameters below the head."""

    def prepare(self, network: Network) -> Callable[[], None]:
        """Make the change; it is the same one every time.

        Returns:
            A function that undoes the change.
        """


@contextmanager
def prepared(network: Network, change: Change | None) -> Iterator[None]:
    """Make a change of the network within the ``with``, and undo it afterwards; None: there is nothing to change."""
    undo = change.prepare(network) if change is not None else None
    try:
        yield
    finally:
        if undo is not None:
            undo()


class LowRank(Adapter):
    """``weight + alpha / rank * up @ down``, where ``up`` begins at zero.

    The kernel of a convolution is used as the matrix [out, in * height * width]: ``down`` is then a convolution with
    ``rank`` channels, and ``up`` a 1 x 1 convolution after it.

    Args:
        weight: the weight [out, in, ...]; it is not changed.
        rank: rows of ``down``, columns of ``up``.
        alpha: numerator of the product's factor.
        generator: draws ``down``, on the CPU.

    Source: Hu et al., 2021, arXiv 2106.09685; ``down`` is initialised as in microsoft/LoRA, ``loralib/layers.py``.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = _matrix_shape(weight)
        down = nn.init.kaiming_uniform_(torch.empty(rank, columns), a=math.sqrt(5), generator=generator)
        self.down = nn.Parameter(down.to(weight))
        self.up = nn.Parameter(torch.zeros(rows, rank).to(weight))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """Add the product of the adapter to the weight [out, in, ...]."""
        with torch.autocast(weight.device.type, enabled=False):  # the merged weight that is saved has full precision
            return weight + self.scale * (self.up @ self.down).view_as(weight)


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters of some weights.

    Attributes:
        weights: full names of the weights, always in the same order.
        rank: rank of each adapter.
        alpha: numerator of the factor of each adapter.
        seed: the seed for the initial values of the adapters.
    """

    weights: tuple[str, ...]
    rank: int
    alpha: float
    seed: int

    @property
    def learning(self) -> frozenset[str]:
        """As ``Change``'s."""
        return frozenset(tensor_name(weight, own) for weight in self.weights for own in ("down", "up"))

    def prepare(self, network: Network) -> Callable[[], None]:
        """As ``Change``'s."""
        generator = torch.Generator().manual_seed(self.seed)
        adapters: dict[str, Adapter] = {
            name: LowRank(network.module.get_parameter(name), self.rank, self.alpha, generator) for name in self.weights
        }
        return adapt(network.module, adapters)


def _lora(phase: PhaseConfig, weights: Sequence[str], seed: int) -> Lora:
    assert phase.rank is not None  # the schema checks both
    assert phase.alpha is not None
    return Lora(tuple(weights), phase.rank, phase.alpha, seed)


# Values of ``learn`` that train adapters -> function that returns the change for a phase, names of weights and a seed.
ADAPTERS: Mapping[str, Callable[[PhaseConfig, Sequence[str], int], Change]] = {"lora": _lora}


def choose_weights(phase: PhaseConfig, candidates: Sequence[Candidate]) -> frozenset[str]:
    """The weights that the patterns of a phase choose from those that are larger than their adapters.

    Raises:
        ConfigError: if there is no such weight, a pattern has no effect, or a weight matches no pattern.
    """
    rank = phase.rank or 0
    large = [candidate for candidate in candidates if _is_large(candidate, rank)]
    kinds = f"linear layers and ungrouped convolutions that are larger than adapters of rank {rank} would be"
    if not large:
        raise ConfigError(
            f"stage.phases ({phase.name}): the network has no weight for learn={phase.learn}, which is for {kinds}. "
            "Use a lower stage.rank, other blocks, or another stage."
        )
    return chosen_by_patterns(phase, large, "weight", f"Adapters are for {kinds}. ")


def build_change(phase: PhaseConfig, weights: frozenset[str], config: Config) -> Change:
    """The change that a phase with adapters makes.

    Args:
        phase: the phase; its ``learn`` is one of ``ADAPTERS``.
        weights: full names of the weights, from ``choose_weights``.
        config: the whole configuration.

    Raises:
        ConfigError: if adapters cannot be combined with a setting.
    """
    if config.train.l2_sp is not None:
        raise ConfigError(
            f"train.l2_sp={config.train.l2_sp} cannot be combined with learn={phase.learn} (phase {phase.name}): the "
            "weights are frozen, and weight decay keeps the adapters near zero. Use train.l2_sp=null."
        )
    return ADAPTERS[phase.learn](phase, sorted(weights), config.runtime.seed)


def _matrix_shape(weight: Tensor) -> tuple[int, int]:
    """Rows and columns of a weight [out, in, ...] as a matrix."""
    return weight.shape[0], weight[0].numel()


def _is_large(candidate: Candidate, rank: int) -> bool:
    layer, leaf = candidate.layer, candidate.leaf
    if isinstance(layer, nn.MultiheadAttention):
        is_matrix = leaf == "in_proj_weight"
    else:
        ungrouped = isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == 1
        is_matrix = leaf == "weight" and (ungrouped or isinstance(layer, nn.Linear))
    if not is_matrix:
        return False
    rows, columns = _matrix_shape(layer.get_parameter(leaf))
    return rank * (rows + columns) < rows * columns
