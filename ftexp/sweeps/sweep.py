"""A whole search, from the space to the summary."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, cast

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from optuna.samplers import RandomSampler

from ftexp.config import Config, parse
from ftexp.config.check import check
from ftexp.config.recipe import AUTO
from ftexp.config.sweep import DIRECTIONS
from ftexp.config.uri import at_home
from ftexp.errors import ConfigError
from ftexp.models.blocks import HEAD
from ftexp.run_folder import refuse_trials
from ftexp.search_preset import choose_preset
from ftexp.sweeps.confirm import check_confirmable, confirm
from ftexp.sweeps.parent import parent_run, record_summary
from ftexp.sweeps.pruning import build_pruner
from ftexp.sweeps.ranges import Options, check_whole_numbers
from ftexp.sweeps.samplers import build_sampler
from ftexp.sweeps.search import Search
from ftexp.sweeps.space import EACH_BLOCK, Space, build_space
from ftexp.sweeps.study import EPOCHS, JOURNAL, Direction, SharedStudy, name_study
from ftexp.sweeps.summary import Summary

DEFAULT_TRIALS = 20

log = logging.getLogger(__name__)


def sweep(
    composed: DictConfig,
    settings: Mapping[str, Any],
    arguments: Sequence[str],
    options_of: Options,
    launcher: Callable[[], Any],
) -> None:
    """Run trials until the study has the configured number, then write the summary.

    Args:
        composed: the whole configuration with Hydra's part; folder and study of the sweep are written into it.
        settings: ``hydra.sweeper``.
        arguments: the overrides of the command line.
        options_of: returns the names of all options of a group.
        launcher: makes Hydra's launcher when all settings are known.

    Raises:
        UserError: if the space, the objectives or the storage are not valid, or too many trials fail.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config, plain = _run_part(composed, arguments)
    directions = _directions(settings["direction"], config.sweep.objectives)
    preset = choose_preset(config, composed.hydra.runtime.choices, arguments)
    space = build_space(
        preset={**preset.space, **(settings["params"] or {})},
        idle=preset.idle,
        arguments=arguments,
        options=composed.hydra.runtime.choices,
        learning_blocks=_learning_blocks(config) if EACH_BLOCK in preset.space else [],
        options_of=options_of,
    )
    for key, distribution in space.ranges.items():
        check_whole_numbers(key, distribution, space.texts[key], OmegaConf.select(composed, key.lstrip("+")))
    check_confirmable(config.sweep, space)
    sampler = cast(dict[str, Any], OmegaConf.to_container(settings["sampler"]))
    is_grid = space.listed or sampler["_target_"].endswith(".GridSampler")
    foreseen = _foreseen(config)
    planned = space.combinations() if is_grid else [_configured(space, composed, foreseen)]
    total = settings["n_trials"]
    if total is None:
        total = len(planned) if is_grid else DEFAULT_TRIALS
    total = min(total, len(planned)) if is_grid else total
    check(total >= 1, "hydra.sweeper.n_trials", total, "at least 1")
    check(settings["n_jobs"] >= 1, "hydra.sweeper.n_jobs", settings["n_jobs"], "at least 1")
    rate = settings["max_failure_rate"]
    check(0 <= rate <= 1, "hydra.sweeper.max_failure_rate", rate, "between 0 and 1")
    pruner = "none" if space.listed else settings["pruner"]
    epochs = sum(int(phase.epochs) for phase in foreseen.stage.phases)
    built = build_pruner(pruner, epochs, len(directions))  # raises for a wrong name before anything is written

    prefix = "grid" if space.listed else preset.name
    name = settings["study_name"] or name_study(prefix, plain, space.texts)
    folder = _sweep_folder(composed, name)
    _refuse_other_study(folder, name)
    storage = at_home(settings["storage"] or "") or f"{JOURNAL}{folder / 'study.journal'}"
    _hand_over(composed, folder=folder, storage=storage, study_name=name, pruner=pruner)
    shared = SharedStudy(folder, storage, name, directions)
    try:
        if not shared.study.get_trials(deepcopy=False):
            refuse_trials(folder)  # if the folder has trials of a study of this name in another storage
        # All points of a grid are enqueued, so nothing is drawn.
        shared.study.sampler = RandomSampler() if is_grid else build_sampler(sampler, shared.session)
        shared.study.pruner = built
        with shared.locked():
            if EPOCHS not in shared.study.user_attrs:  # a study named by the user may have other settings
                shared.study.set_user_attr(EPOCHS, epochs)
            _enqueue(shared.study, planned, is_grid)
        summary = Summary(shared.study, folder, space, config.sweep.objectives, total)
        summary.begin()
        search = Search(shared, space, launcher, summary, total, settings["n_jobs"], rate)
        with parent_run(shared, config.tracking) as tracker:
            try:
                search.run()
                if hosts := shared.hosts_at_work():
                    log.info(
                        "Other processes are still running trials of this study (%s); the last one writes the complete "
                        "summary. If one of them has died, the same command repeats its trial.",
                        ", ".join(hosts),
                    )
                if config.sweep.confirm and not shared.running():  # else the last process does it
                    summary.confirmed = confirm(
                        shared.study, folder, space, config.sweep, config.runtime.seed + 1, launcher, settings["n_jobs"]
                    )
            finally:
                record_summary(tracker, folder, summary.end(shared.claimed()))
    finally:
        shared.close()


def _run_part(composed: DictConfig, arguments: Sequence[str]) -> tuple[Config, dict[str, Any]]:
    """The configuration of a run: as an object, and as plain data from which the study gets its name."""
    task = composed.copy()
    with read_write(task), open_dict(task):
        task.pop("hydra")
    plain = OmegaConf.to_container(task, resolve=True)
    assert isinstance(plain, dict)
    del plain["tracking"]  # tracking does not change the search, and neither does what follows it
    for key in ("confirm", "confirm_seeds", "trials_per_gpu"):
        del plain["sweep"][key]
    _fill_gaps(task, arguments)
    return parse(task), cast(dict[str, Any], plain)


def _fill_gaps(task: DictConfig, arguments: Sequence[str]) -> None:
    """Give settings without a configured value, such as ``data.root``, the first value of their range."""
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        group, _, key = override.key_or_group.rpartition(".")
        tried = override.value()
        if isinstance(tried, ChoiceSweep) and group and OmegaConf.is_missing(OmegaConf.select(task, group), key):
            first = tried.list[0]
            OmegaConf.update(task, f"{group}.{key}", first.text if isinstance(first, QuotedString) else first)


def _directions(given: Any, objectives: Sequence[str]) -> list[Direction]:
    if given is None:
        return [cast(Direction, DIRECTIONS[name]) for name in objectives]
    texts = [str(text) for text in given] if isinstance(given, (list, ListConfig)) else [str(given)]
    allowed = len(texts) == len(objectives) and set(texts) <= {"maximize", "minimize"}
    check(allowed, "hydra.sweeper.direction", given, f"null, or one of maximize, minimize for each of {objectives}")
    return [cast(Literal["minimize", "maximize"], text) for text in texts]


def _learning_blocks(config: Config) -> list[str]:
    from ftexp.prepare import plan

    blocks = {block: None for phase in plan(config) for block in phase.learning}
    return [block for block in blocks if block != HEAD]


def _sweep_folder(composed: DictConfig, name: str) -> Path:
    """The folder that the user set, or one with the name of the study, so that the same command finds it again."""
    named = any(override.startswith("hydra.sweep.dir=") for override in composed.hydra.overrides.hydra)
    return Path(composed.hydra.sweep.dir if named else Path("multirun") / name).absolute()


def _refuse_other_study(folder: Path, name: str) -> None:
    """Refuse to put the trials of a study into the folder of another study.

    Raises:
        ConfigError: if the folder belongs to another study.
    """
    file = folder / "sweep.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))["study"] if file.exists() else name
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is damaged ({error}). Remove it: the same command writes it anew.") from error
    if known != name:
        raise ConfigError(
            f"{folder} is the folder of the study {known}, and this search is the study {name}. Set another "
            "hydra.sweep.dir, or none: by default, every study has its own folder in multirun/."
        )


def _hand_over(composed: DictConfig, *, folder: Path, storage: str, study_name: str, pruner: str) -> None:
    """Write folder, storage, study and pruner into the configuration, where the launcher and the jobs read them."""
    values = {
        "hydra.sweep.dir": str(folder),
        "hydra.sweeper.storage": storage,
        "hydra.sweeper.study_name": study_name,
        "hydra.sweeper.pruner": pruner,
    }
    # One line per trial on the terminal; the lines of each run are in its log file. Other logging settings are kept.
    for key in ("hydra.hydra_logging.loggers.hydra.level", "hydra.job_logging.handlers.console.level"):
        if OmegaConf.select(composed, key) is not None:
            values[key] = "WARNING"
    with read_write(composed.hydra):
        for key, value in values.items():
            OmegaConf.update(composed, key, value)
            quoted = value.replace("\\", "\\\\").replace("'", "\\'")
            composed.hydra.overrides.hydra.append(f"{key}='{quoted}'")


def _configured(space: Space, composed: DictConfig, foreseen: Config) -> dict[str, Any]:
    """The configured values of the searched settings, if they lie in the space; of ``auto``, what it comes to."""
    options = composed.hydra.runtime.choices
    values = {key: options.get(key, OmegaConf.select(composed, key)) for key in space.ranges}
    return space.inside({k: attrgetter(k)(foreseen) if value == AUTO else value for k, value in values.items()})


def _foreseen(config: Config) -> Config:
    from ftexp.prepare import foresee

    return foresee(config)


def _enqueue(study: optuna.Study, planned: Sequence[dict[str, Any]], is_grid: bool) -> None:
    """Enqueue all points of a grid or, for a search, the configured values, so that the best is at least as good."""
    if is_grid or not study.get_trials(deepcopy=False):
        for values in planned:
            study.enqueue_trial(values, skip_if_exists=True)
