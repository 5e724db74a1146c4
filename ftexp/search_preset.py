"""The preset of a search: what ``sweep`` names or, where the head alone is solved, what such a head depends on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ftexp.config import Config
from ftexp.config.conf_dir import conf_dir

log = logging.getLogger(__name__)

OF_SOLVED_HEADS = "head"


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset of ``conf/sweep``.

    Attributes:
        name: its name.
        space: range of each setting, as text.
        idle: for ``group=option``, the settings that have no effect with it.
    """

    name: str
    space: Mapping[str, str]
    idle: Mapping[str, Sequence[str]]


def choose_preset(config: Config, options: Mapping[str, str], arguments: Sequence[str]) -> Preset:
    """The preset that is configured, unless nobody chose it and the trials solve their heads: these have no rates.

    Args:
        config: the configuration of a trial.
        options: chosen option of each group.
        arguments: the overrides of the command line.
    """
    configured = Preset(str(options["sweep"]), config.sweep.space, config.sweep.idle)
    named = {override.key_or_group for override in OverridesParser.create().parse_overrides(list(arguments))}
    if any(map(_chooses, named)) or options["stage"] != "head":
        return configured
    if not _is_solved(config, arguments):
        return configured
    log.info("The head is solved, so this search has no learning rates: it is sweep=%s.", OF_SOLVED_HEADS)
    content = OmegaConf.load(conf_dir() / "sweep" / f"{OF_SOLVED_HEADS}.yaml")
    return Preset(OF_SOLVED_HEADS, dict(content.space), {})


def _chooses(key: str) -> bool:
    """Whether a key of an override chooses a preset or a part of one; other settings of ``sweep`` hold for any."""
    return key == "sweep" or f"{key}.".startswith(("sweep.space.", "sweep.idle."))


def _is_solved(config: Config, arguments: Sequence[str]) -> bool:
    from ftexp.preparation.head_solver import choose_solver
    from ftexp.preparation.prepare import plan  # imports torch, which takes seconds

    return all(phase.solved for phase in choose_solver(config, plan(config), arguments))
