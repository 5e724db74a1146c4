"""Which parameters of a phase's blocks are trainable: all, or those that a rule chooses by layer or by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch.nn.modules.batchnorm import _BatchNorm

from ftexp.config import BatchNormPolicyConfig, PhaseConfig
from ftexp.errors import ConfigError
from ftexp.finetune.adapters import ADAPTERS, choose_weights
from ftexp.finetune.candidates import Candidate, candidates_of, chosen_by_patterns
from ftexp.finetune.decay import is_bias, is_norm_layer
from ftexp.models.blocks import HEAD, Network


@dataclass(frozen=True, slots=True)
class Part:
    """The trainable part of a phase's blocks.

    Attributes:
        kind: the value of ``learn``, such as norms; adapters, if a change of the network adds what is trained.
        names: full names of the trainable parameters below the head.
    """

    kind: str
    names: frozenset[str]


def choose_part(phase: PhaseConfig, network: Network, blocks: Collection[str]) -> Part:
    """The parameters below the head that a phase's rule chooses.

    Args:
        phase: the phase; its ``learn`` is one of ``RULES``.
        network: the network, or its skeleton.
        blocks: names of the blocks to choose from.

    Raises:
        ConfigError: if the rule chooses no parameter, a pattern has no effect, or a parameter matches no pattern.
    """
    names = RULES[phase.learn](phase, [candidate for candidate in candidates_of(network) if candidate.block in blocks])
    if not names:
        raise ConfigError(
            f"Phase {phase.name}: learn={phase.learn} chooses no parameter of {network.name} in the blocks "
            f"{', '.join(block for block in blocks if block != HEAD)}. Choose others; stage=head trains the head alone."
        )
    return Part(phase.learn, names)


def learning_blocks(part: Part, network: Network, policy: BatchNormPolicyConfig, phase: str) -> tuple[str, ...]:
    """The blocks with a parameter of the part that bn_policy does not freeze, and the head.

    Args:
        part: the parameters that the phase chooses.
        network: the network, or its skeleton.
        policy: the BatchNorm policy of the phase.
        phase: the name of the phase, for the message.

    Raises:
        ConfigError: if the policy freezes the whole part.
    """
    chosen = [candidate for candidate in candidates_of(network) if candidate.name in part.names]
    if not policy.train_affine_parameters:
        chosen = [candidate for candidate in chosen if not isinstance(candidate.layer, _BatchNorm)]
    blocks = {HEAD, *(candidate.block for candidate in chosen)}
    if len(blocks) == 1:
        raise ConfigError(
            f"Phase {phase}: learn={part.kind} chooses only scale and bias of BatchNorm layers, and "
            "bn_policy.train_affine_parameters=false freezes these. Use bn_policy=eval or bn_policy=train."
        )
    return tuple(block for block in network.names if block in blocks)


def _norms(_: PhaseConfig, candidates: Sequence[Candidate]) -> frozenset[str]:
    return frozenset(candidate.name for candidate in candidates if is_norm_layer(candidate.layer))


def _biases(_: PhaseConfig, candidates: Sequence[Candidate]) -> frozenset[str]:
    return frozenset(candidate.name for candidate in candidates if is_bias(candidate.leaf))


# Values of ``learn`` that are finer than blocks -> function that returns the full names of the chosen candidates; for
# adapters, of the weights that they change.
RULES: Mapping[str, Callable[[PhaseConfig, Sequence[Candidate]], frozenset[str]]] = {
    "norms": _norms,
    "biases": _biases,
    "patterns": chosen_by_patterns,
    **dict.fromkeys(ADAPTERS, choose_weights),
}
