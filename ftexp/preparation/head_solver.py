"""Whether a phase that trains the head alone is solved, or trained by steps (``head.solver``).

``auto`` solves unless something is set that only steps have. A setting counts as set if an override of the command
names it, also in a trial of a search, or if its value is not the one in ``conf/``: in an experiment, or in Python.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from omegaconf import OmegaConf

from ftexp.config import SCHEMA, Config, with_changes
from ftexp.config.conf_dir import conf_dir
from ftexp.errors import ConfigError
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import HEAD, Network
from ftexp.training.inputs.features import why_unsolvable

log = logging.getLogger(__name__)

# Settings of ``train`` that belong to steps. Batch size, saving and retries do not: they are about memory and safety.
OF_STEPS = ("clip_norm", "accumulate", "patience", "ema")
# A solved phase is one entry of the history.
ONE_EPOCH = 1
MAX_NAMED = 3


def choose_solver(config: Config, phases: Sequence[Phase], overrides: Sequence[str]) -> tuple[Phase, ...]:
    """Mark the phases to be solved, as far as the settings tell.

    Args:
        config: the configuration of the run.
        phases: the planned phases.
        overrides: the overrides of the command.

    Raises:
        ConfigError: if ``head.solver=solved`` is not possible with the others, or ``head.strength`` has no effect.
    """
    solver, heads = config.head.solver, [phase for phase in phases if _trains_head_alone(phase)]
    alone = len(heads) == len(phases)
    if solver == "auto" and not alone:  # only those that the stage wants to be solved
        wanted = {phase.name for phase in config.stage.phases if phase.solve}
        heads = [phase for phase in heads if phase.name in wanted]
    if solver == "sgd" or (solver == "auto" and not heads):
        _refuse_strength(config, "the head is trained by steps")
        return tuple(phases)
    if not heads:
        raise ConfigError("head.solver=solved has no effect: no phase has learn=head. Use stage=head, or remove it.")
    reasons = list(_unsolvable(config, heads))
    if alone:
        reasons += _of_steps(config, overrides)
    if not reasons:
        return tuple(_as_solved(phase) if phase in heads else phase for phase in phases)
    if solver == "solved":
        raise ConfigError(
            f"head.solver=solved is not possible with {_listed(reasons)}, which only steps have. Remove "
            f"{'it' if len(reasons) == 1 else 'them'}, or use head.solver=sgd."
        )
    _refuse_strength(config, f"the head is trained by steps because of {_listed(reasons)}")
    log.info("head    trained by steps, not solved: %s (head.solver=auto)", _listed(reasons))
    return tuple(phases)


def solved_as_in(chosen: Sequence[Phase], planned: Sequence[Phase]) -> tuple[Phase, ...]:
    """The planned phases, those of them solved that were chosen for it in an earlier plan of the same stage."""
    return tuple(_as_solved(now) if old.solved else now for old, now in zip(chosen, planned, strict=True))


def keep_solvable(
    config: Config, before: Sequence[Phase], chosen: Sequence[Phase], network: Network, num_train: int
) -> tuple[Phase, ...]:
    """Take back what ``choose_solver`` marked if the network cannot be solved, or its features take too much memory.

    Args:
        config: the configuration of the run.
        before: the phases as they were planned.
        chosen: what ``choose_solver`` made of them.
        network: the network.
        num_train: number of training images.

    Raises:
        ConfigError: if ``head.solver=solved`` or ``head.init=solved`` is not possible, or ``head.strength`` idle.
    """
    solved = any(phase.solved for phase in chosen)
    if not solved and config.head.init == "random":
        return tuple(chosen)
    reason = why_unsolvable(network) or _too_large(config, network, num_train)
    if reason is None:
        return tuple(chosen)
    for key, value in (("solver", config.head.solver), ("init", config.head.init)):
        if value == "solved":
            other = {"solver": "sgd", "init": "random"}[key]
            raise ConfigError(f"head.{key}=solved is not possible: {reason}. Use head.{key}={other}.")
    _refuse_strength(config, reason)
    log.info("head    trained by steps, not solved: %s (head.solver=auto)", reason)
    return tuple(before)


def _refuse_strength(config: Config, reason: str) -> None:
    if config.head.strength is not None and config.head.init == "random":
        raise ConfigError(f"head.strength={config.head.strength:g} has no effect: {reason}. Remove it.")


def bytes_to_solve(num_train: int, num_features: int, num_classes: int) -> int:
    """Estimate the bytes that solving takes at its peak: copies of the features, their Gram matrix, logits."""
    features, square = num_train * num_features, num_features**2
    return 36 * features + 40 * square + 64 * num_train * num_classes


def _too_large(config: Config, network: Network, num_train: int) -> str | None:
    weight = network.module.get_parameter(f"{network.heads[0]}.weight")
    num_classes, num_features = weight.shape
    gib = bytes_to_solve(num_train, num_features, num_classes) / 2**30
    if gib <= config.head.max_gib:
        return None
    return (
        f"{num_features:,} features of {num_train:,} images would take {gib:.1f} GiB, and "
        f"head.max_gib={config.head.max_gib:g} are allowed"
    )


def _as_solved(phase: Phase) -> Phase:
    return replace(phase, epochs=ONE_EPOCH, solved=True)


def _trains_head_alone(phase: Phase) -> bool:
    return phase.learning == (HEAD,) and phase.change is None


def _unsolvable(config: Config, heads: Sequence[Phase]) -> Iterator[str]:
    """Settings for which there is no optimum of logistic regression on fixed features."""
    if config.loss.name != "cross_entropy":
        yield f"loss={config.loss.name}"
    if any(phase.augment.is_random for phase in heads):
        yield "random augmentation (augment)"


def _of_steps(config: Config, overrides: Sequence[str]) -> list[str]:
    """Settings that only steps have, and that the user has set."""
    given = [override for override in overrides if _is_of_steps(override.partition("=")[0].lstrip("+~"))]
    named = {override.partition("=")[0].lstrip("+~").partition(".")[2] for override in given}
    found = given + [difference for difference in _differences(config) if _key_of(difference) not in named]
    return list(dict.fromkeys(found))


def _is_of_steps(key: str) -> bool:
    single = ("stage.epochs", "model.drop_rate", *(f"train.{name}" for name in OF_STEPS))
    return key in single or key.partition(".")[0] in ("optimizer", "scheduler")


def _key_of(setting: str) -> str:
    return setting.partition("=")[0].partition(".")[2]


def _differences(config: Config) -> Iterator[str]:
    """The settings of steps whose values are not the defaults, as ``key=value``."""
    defaults: Any = OmegaConf.load(conf_dir() / "config.yaml")
    defaults.stage = {"ema": config.stage.ema}  # to which train.ema refers
    chosen = {group: name for entry in defaults.defaults if not isinstance(entry, str) for group, name in entry.items()}
    epochs = OmegaConf.load(conf_dir() / "stage" / "head.yaml").epochs
    for phase in config.stage.phases:
        if phase.epochs != epochs:
            yield f"stage.epochs={phase.epochs}"
        if phase.lr_factor != 1:
            yield f"lr_factor={phase.lr_factor:g} of phase {phase.name}"
        for group, changes in (("optimizer", phase.optimizer), ("scheduler", phase.scheduler)):
            value = with_changes(getattr(config, group), changes, f"stage.phases ({phase.name}).{group}")
            yield from _changed(group, value, _option(group, chosen[group]))
    for name in OF_STEPS:
        value = getattr(config.train, name)
        if value != defaults.train[name]:
            yield f"train.{name}={value}"
    if config.model.drop_rate is not None:
        yield f"model.drop_rate={config.model.drop_rate}"


def _changed(group: str, value: Any, default: Any) -> Iterator[str]:
    if type(value) is not type(default):
        yield f"{group}={value.name}"
        return
    for field in fields(default):
        if (given := getattr(value, field.name)) != getattr(default, field.name):
            yield f"{group}.{field.name}={given}"


def _option(group: str, name: str) -> Any:
    """An option of a config group with the values of its file."""
    values: Any = OmegaConf.load(conf_dir() / group / f"{name}.yaml")
    schema = values.pop("defaults")[0]
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SCHEMA[group][schema]), values))


def _listed(reasons: Sequence[str]) -> str:
    more = f" and {len(reasons) - MAX_NAMED} more" if len(reasons) > MAX_NAMED else ""
    return ", ".join(reasons[:MAX_NAMED]) + more
