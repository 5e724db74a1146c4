"""The settings that are ``auto``, decided for the network and the training set of a run (``conf/recipe``)."""

from __future__ import annotations

from collections.abc import Sequence

from ftexp.config import Config
from ftexp.finetune.epochs import epoch_length
from ftexp.finetune.phases import Phase, plan_phases
from ftexp.finetune.recipe import Decision, decide, log_decisions, settle
from ftexp.models.blocks import Network
from ftexp.models.family import family_of


def follow_recipe(
    config: Config,
    network: Network,
    phases: Sequence[Phase],
    num_samples: int,
    begun_with: Sequence[Decision] | None = None,
) -> tuple[Config, tuple[Phase, ...], tuple[Decision, ...]]:
    """Decide what is ``auto``, and plan the phases with it; one log line for each decision.

    Args:
        config: the configuration of the run, with a number as batch size.
        network: the network.
        phases: the phases as they were planned before the training set was known, some perhaps to be solved.
        num_samples: number of training images.
        begun_with: what the run decided when it began, if it is resumed.

    Returns:
        The configuration without ``auto``, the phases that it plans, none of them solved, and the decisions.
    """
    if begun_with is None:
        length = epoch_length(num_samples, config.train.images_per_step, config.train.accumulate)
        decisions = decide(config, family_of(network.module), num_samples, length.num_updates)
    else:
        decisions = tuple(begun_with)
    settled = settle(config, decisions)
    log_decisions(settled, [d for d in decisions if not _is_of_solved(d.key, settled, phases)])
    return settled, plan_phases(settled, network.names, network), decisions


def _is_of_solved(key: str, config: Config, phases: Sequence[Phase]) -> bool:
    """Whether a decision is about a phase whose head is solved, which has neither epochs nor augmentation."""
    if key.startswith("optimizer."):
        return all(phase.solved for phase in phases)
    solved = {phase.name for phase in phases if phase.solved}
    return config.stage.phases[int(key.split(".")[2])].name in solved
