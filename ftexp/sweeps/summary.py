"""The reports of a search: a line per trial, tables, plots, and a link to the best trial."""

from __future__ import annotations

import logging
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ftexp.config.moved import renamed_overrides
from ftexp.config.uri import hide_credentials
from ftexp.files.json_files import write_json
from ftexp.report.tables import write_rows
from ftexp.sweeps.confirm import SEED, Confirmed
from ftexp.sweeps.html_report import write_html_report
from ftexp.sweeps.plots import write_plots
from ftexp.sweeps.space import Space
from ftexp.sweeps.study import ERROR

# The seeds in the command that repeats the best trial.
SEEDS = range(1, 6)

log = logging.getLogger(__name__)


class Summary:
    """Reports on a study in its folder and on the terminal.

    Args:
        study: the study.
        folder: the folder of the sweep.
        space: the searched space.
        objectives: names of the objectives.
        total: number of trials that the study will have.
    """

    def __init__(self, study: optuna.Study, folder: Path, space: Space, objectives: Sequence[str], total: int) -> None:
        self._study = study
        self._folder = folder
        self._space = space
        self._objectives = list(objectives)
        self._total = total
        self._seconds: list[float] = []
        # The results of sweep.confirm, the best trial first.
        self.confirmed: list[Confirmed] = []
        # Trials of this process that have ended.
        self.num_ended = 0

    def begin(self) -> None:
        """Log what is searched, and how many trials earlier calls have completed."""
        done = len([trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()])
        searched = ", ".join(self._space.texts)
        log.info("sweep   %s: %d trials over %s", self._study.study_name, self._total, searched)
        if done:
            log.info("        continues after %d ended trials; for another study: hydra.sweeper.study_name=NAME", done)

    def trial_ended(self, number: int, claimed: Sequence[FrozenTrial], seconds: float) -> None:
        """Log one line: the trial, its settings, its result, the best trial so far, the time left.

        Args:
            number: number of the trial.
            claimed: the trials of the study that count.
            seconds: duration of the trial.
        """
        self.num_ended += 1
        self._seconds.append(seconds)
        trial = next(trial for trial in claimed if trial.number == number)
        left = self._total - len([trial for trial in claimed if trial.state.is_finished()])
        log.info(
            "trial %d  %s  %s  %s%.0f s%s",
            number,
            "  ".join(f"{key}={_short(value)}" for key, value in trial.params.items()),
            self._outcome(trial),
            self._best_so_far(),
            seconds,
            f", about {_duration(left * sum(self._seconds) / len(self._seconds))} left" if left > 0 else "",
        )
        self._write(claimed)

    def end(self, claimed: Sequence[FrozenTrial]) -> dict[str, float]:
        """Write files, plots and the link to the best trial, and log the command that scores it on the test split.

        Returns:
            The best trial's value of each objective; empty if there is no best trial, or no single one.
        """
        content = self._write(claimed)
        write_plots(self._study, self._folder, self._objectives)
        write_html_report(self._folder, content, [self._row(trial) for trial in claimed])
        for one in self.confirmed:
            mean, spread = (f"{value:.4f}" if value is not None else "-" for value in (one.mean, one.spread))
            log.info(
                "confirm trial %d  %.4f in the search, %s ± %s with %d of %d fresh seeds",
                *(one.trial, one.searched, mean, spread, len(one.values), len(one.seeds)),
            )
        best = content["best"]
        if not best:
            log.info("No trial was completed.  %s", self._folder)
            return {}
        for entry in best:
            values = "  ".join(f"{name} {value:.4f}" for name, value in entry["values"].items())
            log.info("best    trial %d  %s\n        %s", entry["trial"], values, entry["command"])
        if len(best) == 1:
            self._link(str(best[0]["trial"]))
        log.info("%s  %s", _states(claimed), self._folder)
        return dict(best[0]["values"]) if len(best) == 1 else {}

    def _write(self, claimed: Sequence[FrozenTrial]) -> dict[str, Any]:
        write_rows(self._folder / "trials.csv", [self._row(trial) for trial in claimed])
        completed = [trial for trial in claimed if trial.state == TrialState.COMPLETE]
        best = self._study.best_trials if completed else []
        if len(self._objectives) == 1:
            best = best[:1]
        if self.confirmed and self.confirmed[0].complete:
            best = [trial for trial in completed if trial.number == self.confirmed[0].trial]
        content = {
            "study": self._study.study_name,
            "objectives": self._objectives,
            "n_trials": self._total,
            "trials": dict(Counter(trial.state.name for trial in claimed)),
            "seconds": sum(_seconds(trial) for trial in claimed),
            "best": [
                {
                    "trial": trial.number,
                    "values": dict(zip(self._objectives, trial.values, strict=True)),
                    "parameters": trial.params,
                    "command": self._command(trial.params),
                }
                for trial in best
            ],
            "confirm": [one.as_row() for one in self.confirmed],
            "written": time.strftime("%Y-%m-%dT%H:%M:%S"),
        }
        write_json(self._folder / "sweep.json", content)
        return content

    def _row(self, trial: FrozenTrial) -> dict[str, object]:
        values = trial.values or [None] * len(self._objectives)
        return {
            "trial": trial.number,
            "state": trial.state.name,
            **dict(zip(self._objectives, values, strict=True)),
            **{key: trial.params.get(key) for key in self._space.ranges},
            "epochs": len(trial.intermediate_values) or None,
            "seconds": round(_seconds(trial), 1),
            "error": trial.user_attrs.get(ERROR),
        }

    def _command(self, params: Mapping[str, Any]) -> str:
        """The command that runs a trial's settings with several seeds on validation, then once with the test split."""
        fixed = [text for text in self._space.fixed if not text.startswith("sweep")]
        overrides = renamed_overrides([*fixed, *(f"{key}={value}" for key, value in params.items())])
        texts = [shlex.quote(hide_credentials(text)) for text in overrides]
        seedless = [text for text in texts if not text.startswith(f"{SEED}=")]
        seeds = f"{SEED}={','.join(map(str, SEEDS))}"
        return " ".join(["python -m ftexp -m", *seedless, seeds, "&&", "python -m ftexp", *texts])

    def _outcome(self, trial: FrozenTrial) -> str:
        if trial.state == TrialState.FAIL:
            return f"failed: {str(trial.user_attrs.get(ERROR)).splitlines()[0]}"
        values = "  ".join(
            f"{name} {value:.4f}" for name, value in zip(self._objectives, trial.values or [], strict=False)
        )
        if trial.state == TrialState.PRUNED:
            return f"{values} pruned after epoch {trial.last_step}"
        return values

    def _best_so_far(self) -> str:
        if len(self._objectives) > 1 or not self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            return ""
        return f"(best {self._study.best_value:.4f}, trial {self._study.best_trial.number})  "

    def _link(self, trial: str) -> None:
        link = self._folder / "best"
        link.unlink(missing_ok=True)
        link.symlink_to(trial, target_is_directory=True)


def _states(trials: Sequence[FrozenTrial]) -> str:
    counts = Counter(trial.state.name for trial in trials)
    return ", ".join(f"{count} {name.lower()}" for name, count in counts.items())


def _seconds(trial: FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration else 0.0


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
