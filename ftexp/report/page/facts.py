"""What the page says of a run, read from the run's folder."""

from __future__ import annotations

import csv
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftexp.data.samples import SPLITS
from ftexp.errors import CheckpointError
from ftexp.evaluation.calibration import ReliabilityBin, calibration_error, reliability_bins
from ftexp.evaluation.classes import class_table
from ftexp.evaluation.gate import Verdict
from ftexp.evaluation.history import EpochRecord
from ftexp.evaluation.scores import Scores
from ftexp.files.file_format import reading
from ftexp.files.json_files import read_json
from ftexp.files.run_files import DEPTH, HISTORY, IDENTITY, RESULT
from ftexp.metric_names import METRICS
from ftexp.report.lines import explain_skipped, explain_verdict, labels_line

# Rows of a table on the page; the CSV file has all of them.
MAX_CLASSES, MAX_FINDINGS, MAX_GROUPS = 1_000, 20, 400

# Columns of metrics.csv that are no numbers.
WORDS = ("phase", "epoch", "best")

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Facts:
    """A finished run as its folder tells it.

    Attributes:
        identity: the content of ``run.json``; ``result``: of ``result.json``.
        history: the epochs, at least one.
        depth: the content of ``depth.json``, of a run that has it.
        groups: rows of ``param_groups.csv``; ``leaks``, ``bad_images``, ``test_classes`` likewise.
        counts: the number of images of each class in each split, by ``splits.csv``.
    """

    folder: Path
    identity: Mapping[str, Any]
    result: Mapping[str, Any]
    history: Sequence[EpochRecord]
    depth: Mapping[str, Any] | None
    groups: Sequence[Row]
    counts: Mapping[str, Counter[str]]
    leaks: Sequence[Row]
    bad_images: Sequence[Row]
    test_classes: Sequence[Row]

    @classmethod
    def read(cls, folder: Path) -> Facts:
        """Of the run in a folder.

        Raises:
            CheckpointError: when there is no finished run in it, or one of its files is damaged.
        """
        result = read_json(folder / RESULT) if (folder / RESULT).exists() else {}
        if result.get("status") != "finished" or not (folder / IDENTITY).exists():
            ended = f"it ended as {result['status']}" if "status" in result else "there is no result.json in it"
            raise CheckpointError(f"{folder}: a page is made of a run that has finished, and {ended}.")
        with reading(folder / HISTORY):
            history = [EpochRecord.from_row(_typed(row)) for row in _rows(folder / HISTORY)]
            if not history:
                raise ValueError("there is no epoch in it")
        return cls(
            folder,
            read_json(folder / IDENTITY),
            result,
            history,
            depth=read_json(folder / DEPTH) if (folder / DEPTH).exists() else None,
            groups=_rows(folder / "param_groups.csv"),
            counts=_counts(folder / "splits.csv"),
            leaks=_rows(folder / "leaks.csv"),
            bad_images=_rows(folder / "bad_images.csv"),
            test_classes=_rows(folder / "classes.csv") if result["baseline"]["split"] == "test" else [],
        )

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration of the run."""
        config: Mapping[str, Any] = self.identity["config"]
        return config

    @property
    def classes(self) -> list[str]:
        """Their names in the order of the logits."""
        return list(self.identity["classes"])

    @property
    def title(self) -> str:
        """The network and the data."""
        return f"{self.config['model']['name']} on {self.config['data']['source']}"

    def metric_rows(self) -> list[dict[str, Any]]:
        """Each metric with its value and 95 % interval on validation, at the best epoch, and on the test split."""
        best, test = self.result["best"], self.result["test"] or {}
        names = [name for name in METRICS if f"val_{name}" in best]
        return [
            {
                "name": METRICS[name].label,
                "decides": name == self.result["metric"],
                "val": best[f"val_{name}"],
                "val_interval": best.get(f"val_{name}_ci95"),
                "test": test.get(name),
                "test_interval": test.get(f"{name}_ci95"),
            }
            for name in names
        ]

    def phase_rows(self) -> list[dict[str, Any]]:
        """Each phase with its result, and the gate's reasons in a sentence."""
        metric, num_val = self.result["metric"], self.counts["val"].total()
        stops = self.config.get("stage", {}).get("on_dropped", "stop") == "stop"
        dropped_one = any(phase["verdict"] == "dropped" for phase in self.result["phases"])
        not_reached = (
            "the gate dropped a phase before it" if stops and dropped_one else "train.max_minutes left no time"
        )
        rows = []
        for phase in self.result["phases"]:
            gate = phase.get("gate")
            why = explain_verdict(phase["name"], Verdict(**gate), metric, num_val) if gate else None
            if phase["verdict"] == "skipped":
                best = phase.get("best_case")
                why = f"Not begun: {explain_skipped(Verdict(**best), metric, num_val) if best else not_reached}."
            rows.append({**phase, "value": phase.get(f"val_{metric}"), "why": why})
        return rows

    def class_rows(self, scores: Scores) -> list[dict[str, Any]]:
        """Each class with its images, and its scores on validation and, where that was scored, on the test split."""
        train = self.counts["train"]
        of_test = {row["class"]: row for row in self.test_classes}
        rows = [
            {**row, "train": train[str(row["class"])], "test": of_test.get(str(row["class"]))}
            for row in class_table(scores.confusion, self.classes)
        ]
        return sorted(rows, key=_f1)[:MAX_CLASSES] if len(rows) > MAX_CLASSES else rows

    def split_rows(self) -> list[dict[str, Any]]:
        """Images of each split, and of its rarest and commonest class."""
        rows = []
        for split in SPLITS:
            ranked = self.counts[split].most_common()
            rows.append(
                {
                    "split": split,
                    "images": self.counts[split].total(),
                    "classes": len(ranked),
                    "commonest": ranked[0] if ranked else None,
                    "rarest": ranked[-1] if ranked else None,
                }
            )
        return rows

    def labels(self) -> str | None:
        """How many labels look wrong; None where the run did not judge them."""
        judged = self.result.get("labels")  # runs of before they were judged have no such entry
        return labels_line(judged["suspects"], judged["num_images"]) if judged else None

    def leak_kinds(self) -> list[tuple[str, str, int]]:
        """Kind, severity and number of the audit's findings."""
        counts = Counter((row["kind"], row["severity"]) for row in self.leaks)
        return [(kind, severity, count) for (kind, severity), count in counts.most_common()]

    def commands(self) -> list[tuple[str, str]]:
        """What can be done with the run, and the command for it."""
        run, best = shlex.quote(str(self.folder)), f"model.weights={self.folder}/checkpoints/best.pt"
        overrides = self.identity.get("overrides")
        training = []
        if overrides is not None:  # they are not known of a run of ftexp 0.1.0, or of a configuration made in Python
            given, same = shlex.join(overrides), [one for one in overrides if _says_what_is_trained(one)]
            training = [
                ("Run it again", f"python -m ftexp {given}".strip()),
                ("Labels that look wrong", f"python -m ftexp.labels {given}".strip()),
                ("Train on from its weights", f"python -m ftexp {shlex.join([*same, best])} stage=full"),
            ]
        return [
            *training,
            ("Predict", f"python -m ftexp.predict {run} IMAGES --output predictions.csv"),
            ("Evaluate on other images", f"python -m ftexp.evaluate {run} --data data=imagefolder data.root=FOLDER"),
            ("Choose when it should not answer", f"python -m ftexp.calibrate {run} --accuracy 0.99"),
            ("Export", f"python -m ftexp.export {run} --format onnx"),
            ("Write this page again", f"python -m ftexp.report {run}"),
            ("From Python", f"import ftexp\nftexp.load({str(self.folder)!r}).predict('cat.jpg')"),
        ]


def _says_what_is_trained(override: str) -> bool:
    """Whether an override chooses the network or the data; an experiment can choose both."""
    key = override.partition("=")[0].lstrip("+~")
    return key.partition(".")[0] in ("model", "data", "experiment") and key not in ("model.weights", "model.class_map")


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far the probabilities on validation can be believed. ``error``: the expected calibration error."""

    error: float
    confidence: float
    accuracy: float
    bins: Sequence[ReliabilityBin]

    @classmethod
    def of(cls, scores: Scores) -> Calibration | None:
        """Of the scores of validation; None where they have no confidences."""
        if scores.confidences is None:
            return None
        bins = reliability_bins(scores.confidences, scores.labels == scores.predictions)
        return cls(calibration_error(bins), float(scores.confidences.mean()), scores.accuracy, bins)


def _rows(file: Path) -> list[Row]:
    if not file.exists():
        return []
    with reading(file), file.open(newline="", encoding="utf-8") as rows:
        return list(csv.DictReader(rows))


def _counts(file: Path) -> dict[str, Counter[str]]:
    counts = {split: Counter[str]() for split in SPLITS}
    if file.exists():
        with reading(file), file.open(newline="", encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                counts[row["split"]][row["label"]] += 1
    return counts


def _typed(row: Row) -> dict[str, Any]:
    """A row of ``metrics.csv`` with its numbers; an empty field is a rate that there is not, or not finite."""
    numbers = {name: float(text) if text else math.nan for name, text in row.items() if name not in WORDS}
    backbone = numbers["lr_backbone"] if row["lr_backbone"] else None
    best = row["best"] == "True"
    return {"phase": row["phase"], "epoch": int(row["epoch"]), "best": best, **numbers, "lr_backbone": backbone}


def _f1(row: Mapping[str, Any]) -> float:
    return float(row["f1"])
