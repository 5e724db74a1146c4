"""A whole search, from the plan to the summary."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf, read_write
from optuna.samplers import RandomSampler

from ftexp.config.uri import at_home
from ftexp.errors import ConfigError
from ftexp.hydra_internals import enqueued_values
from ftexp.run_folder import refuse_trials
from ftexp.sweeps.confirm import confirm
from ftexp.sweeps.parent import parent_run, record_summary
from ftexp.sweeps.ranges import Options
from ftexp.sweeps.samplers import build_sampler
from ftexp.sweeps.search import Search
from ftexp.sweeps.study import EPOCHS, JOURNAL, SharedStudy
from ftexp.sweeps.summary import Summary
from ftexp.sweeps.sweep_plan import SweepPlan, plan_sweep

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
    plan = plan_sweep(composed, settings, arguments, options_of)
    folder = _sweep_folder(composed, plan.name)
    _refuse_other_study(folder, plan.name)
    storage = at_home(settings["storage"] or "") or f"{JOURNAL}{folder / 'study.journal'}"
    _hand_over(composed, folder=folder, storage=storage, study_name=plan.name, pruner=plan.pruner_name)
    shared = SharedStudy(folder, storage, plan.name, plan.directions)
    try:
        _begin_study(shared, plan, folder)
        summary = Summary(shared.study, folder, plan.space, plan.config.sweep.objectives, plan.num_trials)
        summary.begin()
        with parent_run(shared, plan.config.tracking) as tracker:
            try:
                _search(shared, plan, folder, summary, launcher)
            finally:
                record_summary(tracker, folder, summary.end(shared.claimed()))
    finally:
        shared.close()


def _begin_study(shared: SharedStudy, plan: SweepPlan, folder: Path) -> None:
    """Give the study its sampler, its pruner and its first points."""
    study = shared.study
    if not study.get_trials(deepcopy=False):
        refuse_trials(folder)  # if the folder has trials of a study of this name in another storage
    # All points of a grid are enqueued, so nothing is drawn.
    study.sampler = RandomSampler() if plan.is_grid else build_sampler(plan.sampler, shared.session)
    study.pruner = plan.pruner
    with shared.locked():
        plan.space.check_study(study)
        if EPOCHS not in study.user_attrs:  # a study named by the user may have other settings
            study.set_user_attr(EPOCHS, plan.epochs)
        # Of a search, the configured values come first, so that the best is at least as good.
        if plan.is_grid or not study.get_trials(deepcopy=False):
            _enqueue_missing(study, plan.first_points)


def _enqueue_missing(study: optuna.Study, points: Sequence[dict[str, Any]]) -> None:
    """Queue the points that no trial of the study has yet; to Optuna's skip_if_exists, close numbers are the same."""
    known = [enqueued_values(trial) or trial.params for trial in study.get_trials(deepcopy=False)]
    for values in points:
        if values not in known:
            study.enqueue_trial(values)


def _search(shared: SharedStudy, plan: SweepPlan, folder: Path, summary: Summary, launcher: Callable[[], Any]) -> None:
    """Run the trials, and confirm the best ones if that is asked for."""
    Search(shared, plan.space, launcher, summary, plan.num_trials, plan.jobs, plan.max_failure_rate).run()
    if hosts := shared.hosts_at_work():
        log.info(
            "Other processes are still running trials of this study (%s); the last one writes the complete summary. If "
            "one of them has died, the same command repeats its trial.",
            ", ".join(hosts),
        )
    config = plan.config
    if config.sweep.confirm and not shared.running():  # else the last process does it
        seed = config.runtime.seed + 1
        summary.confirmed = confirm(shared.study, folder, plan.space, config.sweep, seed, launcher, plan.jobs)


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
