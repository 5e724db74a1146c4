"""The loop of a search: ask the study for trials, launch them, tell the study their results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from optuna.trial import Trial, TrialState

from ftexp.errors import UserError
from ftexp.sweeps.job import outcome
from ftexp.sweeps.space import Space
from ftexp.sweeps.study import ERROR, SharedStudy
from ftexp.sweeps.summary import Summary
from ftexp.sweeps.trial import PRUNED


class Search:
    """The loop of a search.

    Args:
        shared: the study.
        space: the searched space.
        launcher: makes Hydra's launcher.
        summary: reports on the study.
        total: number of trials of the study.
        num_jobs: number of trials at once.
        max_failure_rate: share of the trials that may fail before the search stops.
    """

    def __init__(
        self,
        shared: SharedStudy,
        space: Space,
        launcher: Callable[[], Any],
        summary: Summary,
        total: int,
        num_jobs: int,
        max_failure_rate: float,
    ) -> None:
        self._shared = shared
        self._space = space
        self._launcher = launcher
        self._summary = summary
        self._total = total
        self._num_jobs = num_jobs
        self._allowed_failures = math.floor(max_failure_rate * total)
        self._failures: list[str] = []

    def run(self) -> None:
        """Run trials until the study has all of them, including those of other processes.

        Raises:
            UserError: if more trials have failed than allowed, or the study has other ranges.
        """
        launcher = None
        while trials := self._ask():
            launcher = launcher or self._launcher()
            started = time.perf_counter()
            try:
                overrides = [self._overrides(trial) for trial in trials]
                returns = launcher.launch(overrides, initial_job_idx=trials[0].number)
                for trial, job_return in zip(trials, returns, strict=True):
                    self._tell(trial, job_return)
            except BaseException:
                self._give_up_unfinished(trials)
                raise
            seconds = (time.perf_counter() - started) / len(trials)
            for trial in trials:
                self._summary.trial_ended(trial.number, self._shared.claimed(), seconds)
            if len(self._failures) > self._allowed_failures:
                raise UserError(self._explain_failures())

    def _ask(self) -> list[Trial]:
        trials: list[Trial] = []
        with self._shared.locked():
            self._space.check_study(self._shared.study)
            self._shared.take_back_lost()
            left = self._total - len(self._shared.claimed())
            try:
                for _ in range(min(self._num_jobs, left)):
                    trials.append(self._shared.ask())
                for trial in trials:
                    self._space.draw(trial)
            except BaseException:
                for trial in trials:
                    self._shared.give_up(trial.number)
                raise
        return trials

    def _overrides(self, trial: Trial) -> list[str]:
        return [
            *self._space.fixed,
            *(f"{key}={value}" for key, value in trial.params.items()),
            f"hydra.sweep.subdir={trial.number}",
        ]

    def _tell(self, trial: Trial, job_return: Any) -> None:
        study = self._shared.study
        value, reason = outcome(job_return)
        if reason is None and value != PRUNED and not isinstance(value, list):
            reason = f"The trial returned {value!r} instead of the values of its objectives."
        if reason is not None:
            self._failures.append(reason)
            trial.set_user_attr(ERROR, reason)
            study.tell(trial, state=TrialState.FAIL)
        elif value == PRUNED:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)

    def _give_up_unfinished(self, trials: Sequence[Trial]) -> None:
        with self._shared.locked():
            states = {trial.number: trial.state for trial in self._shared.study.get_trials(deepcopy=False)}
            for trial in trials:
                if not states[trial.number].is_finished():
                    self._shared.give_up(trial.number)

    def _explain_failures(self) -> str:
        return (
            f"The sweep stops: {len(self._failures)} of {self._summary.num_ended} trials failed since its start, and "
            f"hydra.sweeper.max_failure_rate allows {self._allowed_failures} of {self._total} to fail. "
            f"The last one: {self._failures[-1]}"
        )
