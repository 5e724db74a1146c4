"""The parameters below the head that a phase's rule chooses from, and the choice by patterns of their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from fnmatch import fnmatchcase

from torch import nn

from ftexp.config import PhaseConfig
from ftexp.errors import ConfigError, listed
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


def candidates_of(network: Network) -> list[Candidate]:
    """All parameters below the head, in the order of the blocks."""
    candidates = []
    for block in network.names:
        for name in network.parameters(block) if block != HEAD else ():
            path, _, leaf = name.rpartition(".")
            candidates.append(Candidate(name, leaf, block, network.module.get_submodule(path)))
    return candidates


def chosen_by_patterns(
    phase: PhaseConfig, candidates: Sequence[Candidate], what: str = "parameter", hint: str = ""
) -> frozenset[str]:
    """Ordered patterns of full names, as in Big Vision: the first match decides, and every name must match one.

    Args:
        phase: the phase; ``patterns`` are its own.
        candidates: what may be chosen.
        what: the word for a candidate in messages.
        hint: a sentence for messages that says which parameters are candidates, if not all are.

    Raises:
        ConfigError: if a pattern has no effect, or a candidate matches no pattern.

    Source: google-research/big_vision, ``big_vision/optax.py``.
    """
    names = [candidate.name for candidate in candidates]
    decided: dict[str, bool] = {}
    for pattern in phase.patterns:
        glob = pattern.removeprefix(FROZEN)
        matched = [name for name in names if fnmatchcase(name, glob)]
        if not matched:
            raise ConfigError(
                f"stage.phases ({phase.name}).patterns: {pattern} matches no {what} below the head, which is always "
                f"trainable. {hint}The nearest names: {', '.join(nearest_names(glob, names))}. A pattern has to match "
                "the whole name; * stands for any characters."
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
            f"stage.phases ({phase.name}).patterns: {len(undecided)} of the {len(names)} {what}s below the head "
            f"match no pattern: {listed(undecided, MAX_NAMED)}. End the list with {FROZEN}* to freeze them, or * to "
            "choose them."
        )
    return frozenset(name for name, learns in decided.items() if learns)


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
