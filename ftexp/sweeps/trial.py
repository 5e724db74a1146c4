"""A trial of a search: a run that reports to its study."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.samplers import RandomSampler

from ftexp.config import Config
from ftexp.errors import PrunedError
from ftexp.run import run
from ftexp.run_folder import locked, start_again
from ftexp.sweeps.gpu_slots import gpu_slot
from ftexp.sweeps.pruning import PruningObserver, build_pruner
from ftexp.sweeps.study import EPOCHS, open_storage, running_trial

# The return value of a pruned trial; a string, because it may come from another process.
PRUNED = "pruned"
# If a launcher loses the process of a trial and starts the trial again, the old process may take this long to end.
SECONDS_TO_DIE = 30


@dataclass(frozen=True, slots=True)
class TrialAddress:
    """What a process needs to find its trial, as plain values.

    Attributes:
        storage: URL of the storage.
        study_name: name of the study.
        number: number of the trial.
        pruner: name of the pruner.
    """

    storage: str
    study_name: str
    number: int
    pruner: str


def run_trial(
    config: Config, folder: Path, address: TrialAddress | None, num_jobs: int, overrides: Sequence[str] = ()
) -> list[float] | str:
    """Fine-tune with the settings of a trial, in a free GPU slot and without the test split.

    Args:
        config: the settings of the trial.
        folder: of the trial.
        address: None for a run that confirms a trial with another seed: it is no trial itself, and never pruned.
        num_jobs: trials that share the cores of this process, each in a process of its own.
        overrides: those of the search and of the trial, which tell what was searched.

    Returns:
        The value of every objective; PRUNED for a trial that was pruned, whose checkpoints are deleted.
    """
    gc.collect()  # the run before in this process is full of cycles: 20 MiB and more that would stay for five trials
    objectives = config.sweep.objectives
    observers = _observers(address, config) if address else []
    locks = (folder.parent if address else folder.parents[1]) / ".sessions"
    per_gpu = config.sweep.trials_per_gpu
    slot = gpu_slot(config.runtime, locks, trials_per_gpu=per_gpu, num_jobs=num_jobs)
    with locked(folder, SECONDS_TO_DIE), slot as runtime:
        start_again(folder, finished=True)
        try:
            settled = replace(config, runtime=runtime)
            result = run(settled, folder, score_test=False, resumable=False, observers=observers, overrides=overrides)
        except PrunedError:
            if (folder / "checkpoints").exists():  # it is missing if every epoch's score was NaN
                shutil.rmtree(folder / "checkpoints")
            return PRUNED
    return [result.objective(name) for name in objectives]


def _observers(address: TrialAddress, config: Config) -> list[PruningObserver]:
    (objective, *others) = config.sweep.objectives
    if others or not objective.startswith("val_"):
        return []  # several objectives have no order, and time or memory spent says nothing about the result
    study = optuna.load_study(
        study_name=address.study_name,
        storage=open_storage(address.storage),
        sampler=RandomSampler(),  # nothing is drawn here; the search has done that
    )
    study.pruner = build_pruner(address.pruner, study.user_attrs[EPOCHS])
    return [PruningObserver(running_trial(study, address.number), objective, config.train.metric, config.stage)]
