"""Records a run: lines on the terminal, files in its folder, and the same in the tracking store."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from ftexp.data.splitting.splits import Splits
from ftexp.errors import PrunedError
from ftexp.evaluation.best import Best
from ftexp.evaluation.classes import class_table, majority_baseline
from ftexp.evaluation.diagnosis import Setting
from ftexp.evaluation.gate import Verdict
from ftexp.evaluation.history import EpochRecord
from ftexp.evaluation.scores import Scores
from ftexp.files.json_files import write_json
from ftexp.finetune.phases import Phase
from ftexp.finetune.schedules import Span
from ftexp.inference.calibration import Calibration
from ftexp.models.blocks import Network
from ftexp.report.curves import Curves
from ftexp.report.lines import (
    calibration_line,
    epoch_line,
    explain_skipped,
    explain_verdict,
    labels_line,
    result_line,
    shown_metrics,
)
from ftexp.report.phase_entries import phase_entry, skipped_entry
from ftexp.report.plan import plan_rows, plot_plan
from ftexp.report.plots import plot_confusion_matrix, plot_curves
from ftexp.report.result import keep_time_plan, result_content, write_failure
from ftexp.report.sent_result import model_to_log, send_result
from ftexp.report.solved import write_solution
from ftexp.report.tables import format_table, write_rows
from ftexp.run_result import RunResult
from ftexp.tracking.report_page import log_report
from ftexp.tracking.send_missing import send_missing_if_possible
from ftexp.tracking.tracker import Status, Tracker
from ftexp.training.judging import JudgedLabels
from ftexp.training.solve import SolvedHead

log = logging.getLogger(__name__)


class Recorder:
    """Records one run while it runs.

    Args:
        folder: the folder of the run.
        tracker: the tracking store.
        setting: the metric that selects the best epoch, and the reference values for the diagnosis.
        phases: the planned phases.
    """

    def __init__(self, folder: Path, tracker: Tracker, setting: Setting, phases: Sequence[Phase]) -> None:
        self.folder = folder
        self._tracker = tracker
        self._metric = setting.metric
        self._epochs = sum(phase.epochs for phase in phases)
        self._planned = [phase.name for phase in phases]
        self._curves = Curves(setting)
        self._trainable = 0
        self._groups: list[dict[str, object]] = []
        self._phases: list[dict[str, object]] = []
        self._labels: dict[str, object] | None = None
        self._head_depth = "last"
        self._temperature: float | None = None

    def plan(self, phases: Sequence[Phase], network: Network, spans: Sequence[Span]) -> None:
        """Record the plan: a plot of the rates and, if there are several phases, a table.

        Args:
            phases: the planned phases.
            network: the network.
            spans: length of each phase.
        """
        self._head_depth = "all" if network.taps else "last"
        if len(phases) > 1:
            log.info("\n%s", format_table(plan_rows(phases, network, spans)))
        if not all(phase.solved for phase in phases):  # else there are no steps to draw
            plot_plan(phases, network, spans, self.folder / "plan.png")
            self._tracker.log_artifact(self.folder / "plan.png")

    def start_phase(self, phase: Phase, groups: Sequence[dict[str, object]]) -> None:
        """Record which tensors are trainable, at which rates; a solved head has none."""
        if phase.solved:
            groups = [{**row, "lr": None, "weight_decay": None} for row in groups]
        before = [row for row in self._groups if row["phase"] != phase.name]
        self._groups = before + [{"phase": phase.name, **row} for row in groups]
        log.info("\n%s\n", format_table(groups))
        write_rows(self.folder / "param_groups.csv", self._groups)
        self._curves.start_phase(phase)
        self._trainable = sum(int(str(row["parameters"])) for row in groups if row["trainable"])

    def solved(self, head: SolvedHead) -> None:
        """Record a solved head."""
        write_solution(head, self.folder)

    def labels(self, judged: JudgedLabels) -> None:
        """Record how many labels look wrong."""
        self._labels = asdict(judged)
        log.info("labels  %s", labels_line(judged.suspects, judged.num_images))

    def time_plan(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Keep the plan under a time limit in ``run.json``."""
        keep_time_plan(self.folder, entries)

    def end_phase(self, phase: Phase, best: Best, verdict: Verdict | None) -> None:
        """Record a phase and the decision of the gate.

        Args:
            phase: the phase.
            best: the best epoch of the phase.
            verdict: the decision; None for the first phase, which is not compared.
        """
        if verdict is not None:
            log.info("gate    %s", explain_verdict(phase.name, verdict, self._metric, best.scores.num_samples))
        facts = self._metric, verdict, self._curves.diagnosis, self._trainable
        self._phases.append(phase_entry(phase, self._curves.of(phase.name), best, *facts))

    def skip(self, phases: Sequence[Phase], best_case: Verdict, num_samples: int) -> None:
        """Record phases that are not begun, because the gate could not keep them even in the best case."""
        names = ", ".join(phase.name for phase in phases)
        log.info("gate    %s skipped: %s", names, explain_skipped(best_case, self._metric, num_samples))
        self._phases += [skipped_entry(phase.name, best_case) for phase in phases]

    def state(self) -> dict[str, object]:
        """What is needed to resume the run, as plain data, except for the epochs."""
        return {"groups": self._groups, "phases": self._phases, "labels": self._labels}

    def resume(self, state: Mapping[str, Any], history: Sequence[EpochRecord]) -> None:
        """Restore what ``state`` returned, and the epochs so far."""
        self._groups, self._phases = list(state["groups"]), list(state["phases"])
        self._labels = state.get("labels")  # a run that an earlier version began has no such entry
        self._curves.records = list(history)
        self._write_history()

    def epoch(self, record: EpochRecord) -> None:
        """Record an epoch: a line on the terminal, a row in ``metrics.csv``, and its metrics in the store."""
        finding = self._curves.add(record)
        self._write_history()
        self._log_metrics(record)
        log.info("%s", epoch_line(record, self._metric, self._epochs))
        if finding is not None:
            log.info("check   %s: %s Try %s.", finding.signal, finding.sentence, finding.override)

    def start(self, record: EpochRecord) -> None:
        """Record the scores of the solved head that the run starts from: no row of ``metrics.csv``."""
        self._log_metrics(record)
        log.info("start   val loss %.4f  %s", record.val_loss, shown_metrics(record.val, self._metric))

    def send_missing(self) -> None:
        """Send the tracking store the epochs that were saved but not sent before the run was stopped."""
        send_missing_if_possible(self._tracker, self.folder)

    def _log_metrics(self, record: EpochRecord) -> None:
        numbers = {name: float(value) for name, value in record.as_row().items() if isinstance(value, float)}
        self._tracker.log_metrics(numbers, step=record.epoch)

    def _write_history(self) -> None:
        if self._curves.records:
            write_rows(self.folder / "metrics.csv", [record.as_row() for record in self._curves.records])

    def finish(
        self,
        best: Best,
        test: Scores | None,
        splits: Splits,
        *,
        test_uses: int,
        peak_memory_mib: float,
        seconds: float,
    ) -> RunResult:
        """Write plots and ``result.json``, send them to the tracking store, and log the result.

        Args:
            best: the best epoch.
            test: the scores of the test split; None if it was not scored.
            splits: the samples.
            test_uses: how often the test split has been used so far, including this run.
            peak_memory_mib: peak memory in MiB.
            seconds: duration of the run.

        Returns:
            The result of the run.
        """
        scores, split = (test, "test") if test else (best.scores, "validation")
        baseline = majority_baseline((sample.label for sample in splits.train), splits.classes, scores.confusion)
        plot_curves(self._curves.records, self.folder / "curves.png", best.record.epoch, self._metric)
        plot_confusion_matrix(scores.confusion, splits.classes, self.folder / "confusion_matrix.png", split)
        write_rows(self.folder / "classes.csv", class_table(scores.confusion, splits.classes))
        result = result_content(
            self._metric,
            best,
            test,
            test_uses=test_uses,
            baseline={"split": split, **baseline},
            phases=self._phases + [skipped_entry(name) for name in self._planned[len(self._phases) :]],
            head_depth=self._head_depth,
            labels=self._labels,
            temperature=self._temperature,
            images_per_second=fmean(record.images_per_second for record in self._curves.records),
            peak_memory_mib=peak_memory_mib,
            seconds=seconds,
            mlflow_run_id=self._tracker.run_id,
        )
        write_json(self.folder / "result.json", result)
        send_result(self._tracker, self.folder, self._curves.records[-1], test, self._curves.diagnosis)
        log.info("always predicting %s gives %s accuracy %.4f", baseline["class"], split, baseline["accuracy"])
        if test_uses > 1:
            log.warning("This test set has been used %d times; results selected with it are too optimistic.", test_uses)
        log.info("%s  %s", result_line(best, test, self._metric), self.folder)
        return RunResult.of(self.folder, result)

    def log_report(self, *, log_images: bool) -> None:
        """Send ``report.html`` to the tracking store, without the images of the data if they may not go there."""
        log_report(self._tracker, self.folder, log_images=log_images)

    def log_model(self, best: Best, register_as: str | None) -> None:
        """Send the best network to the tracking store as a model, with its scores."""
        self._tracker.log_model(model_to_log(self.folder, best, self._curves.records[-1], register_as))

    def calibrated(self, calibration: Calibration) -> None:
        """Record the temperature."""
        self._temperature = calibration.temperature
        log.info("calib.  %s", calibration_line(calibration))

    def failed(self, error: BaseException) -> Status:
        """Write a ``result.json`` that says why there is no result. Returns the status for the tracking store."""
        if isinstance(error, PrunedError):
            self._tracker.set_tags({"pruned": "true"})
        return write_failure(self.folder, error)
