"""Which parameters of a phase's blocks are trainable: all, or those that a rule chooses by layer or by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftexp.config import BatchNormPolicyConfig, PhaseConfig
from ftexp.errors import ConfigError, listed
from ftexp.finetune.decay import is_bias, is_norm_layer
from ftexp.models.blocks import HEAD, Network

FROZEN = "-"  # in front of a pattern
MAX_NAMED = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A parameter below the head, with what the rules need to know of it.

    Attributes:
        name: full name.
        leaf: last part of the name.
        block: name of its block.
        layer: the module that it belongs to.
    """

    name: str
    leaf: str
    block: str
    layer: nn.Module


@dataclass(frozen=True, slots=True)
class Part:
    """The trainable part of a phase's blocks.

    Attributes:
        kind: the value of ``learn``, such as norms.
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


def candidates_of(network: Network) -> list[Candidate]:
    """All parameters below the head, in the order of the blocks."""
    candidates = []
    for block in network.names:
        for name in network.parameters(block) if block != HEAD else ():
            path, _, leaf = name.rpartition(".")
            candidates.append(Candidate(name, leaf, block, network.module.get_submodule(path)))
    return candidates


def _norms(_: PhaseConfig, candidates: Sequence[Candidate]) -> frozenset[str]:
    return frozenset(candidate.name for candidate in candidates if is_norm_layer(candidate.layer))


def _biases(_: PhaseConfig, candidates: Sequence[Candidate]) -> frozenset[str]:
    return frozenset(candidate.name for candidate in candidates if is_bias(candidate.leaf))


def _patterns(phase: PhaseConfig, candidates: Sequence[Candidate]) -> frozenset[str]:
    """Ordered patterns of full names, as in Big Vision: the first match decides, and every name must match one.

    Source: google-research/big_vision, ``big_vision/optax.py``.
    """
    names = [candidate.name for candidate in candidates]
    decided: dict[str, bool] = {}
    for pattern in phase.patterns:
        glob = pattern.removeprefix(FROZEN)
        matched = [name for name in names if fnmatchcase(name, glob)]
        if not matched:
            raise ConfigError(
                f"stage.phases ({phase.name}).patterns: {pattern} matches no parameter below the head, which is always "
                f"trainable. The nearest names: {', '.join(nearest_names(glob, names))}. A pattern has to match the "
                "whole name; * stands for any characters."
            )
        new = [name for name in matched if name not in decided]
        if not new:
            raise ConfigError(
                f"stage.phases ({phase.name}).patterns: {pattern} has no effect: earlier patterns match all that it "
                f"matches ({listed(matched, MAX_NAMED)}). Put it before them, or remove it."
            )
        decided |= dict.fromkeys(new, not pattern.startswith(FROZEN))
    undecided = [name for name in names if name not in decided]
    if undecided:
        raise ConfigError(
            f"stage.phases ({phase.name}).patterns: {len(undecided)} of the {len(names)} parameters below the head "
            f"match no pattern: {listed(undecided, MAX_NAMED)}. End the list with {FROZEN}* to freeze them, or * to "
            "train them."
        )
    return frozenset(name for name, learns in decided.items() if learns)


# Values of ``learn`` that are finer than blocks -> function that returns the full names of the chosen candidates.
RULES: Mapping[str, Callable[[PhaseConfig, Sequence[Candidate]], frozenset[str]]] = {
    "norms": _norms,
    "biases": _biases,
    "patterns": _patterns,
}


def nearest_names(glob: str, names: Sequence[str], count: int = 3) -> list[str]:
    """The names most similar to a glob, compared from the start or the end, depending on where it has its letters.

    Args:
        glob: the pattern.
        names: the names to choose from.
        count: how many to return at most.
    """
    said, at_the_end = glob.strip("*."), glob.startswith("*")
    parts = said.count(".") + 1

    def likeness(name: str) -> float:
        pieces = name.split(".")
        return SequenceMatcher(None, said, ".".join(pieces[-parts:] if at_the_end else pieces[:parts])).ratio()

    return sorted(names, key=likeness, reverse=True)[:count]
