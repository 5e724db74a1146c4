"""Names of the files in the folder of a run, and how the run ended."""

from __future__ import annotations

from pathlib import Path

from ftexp.files.json_files import read_json

# A run writes it when it begins to train; a run that has it can be resumed.
IDENTITY = "run.json"
# A run writes it when it ends.
RESULT = "result.json"
# A row per epoch.
HISTORY = "metrics.csv"
BEST = "checkpoints/best.pt"
# Beside a checkpoint, which is never rewritten.
CALIBRATION = "calibration.json"
# All about a finished run on one page.
REPORT = "report.html"
LOCK = ".lock"
# In the folder of a cross-validation, the folders of the runs that it trains: REPEAT-FOLD.
FOLDS = "folds"
# What each block of the frozen network knows of the classes.
DEPTH, DEPTH_PICTURE = "depth.json", "depth.png"
# The worst pairs of the audit; they are pictures of the data.
LEAKS_PICTURE = "leaks.png"
# Files that are copied to the tracking store, besides the best checkpoint; a run may lack some.
RESULT_FILES = (
    "param_groups.csv",
    "metrics.csv",
    "curves.png",
    "confusion_matrix.png",
    "classes.csv",
    "depth.json",
    "depth.png",
    "solution.json",
    "solution.png",
    "result.json",
)


def with_calibration(checkpoint: Path) -> list[Path]:
    """A checkpoint, and the file with its calibration if it has one."""
    calibration = checkpoint.with_name(CALIBRATION)
    return [checkpoint, calibration] if calibration.exists() else [checkpoint]


def status_of(folder: Path) -> str | None:
    """The status of a run that has ended; None if it was killed or is still in progress.

    Raises:
        CheckpointError: when its ``result.json`` is damaged.
    """
    file = folder / RESULT
    return str(read_json(file).get("status")) if file.exists() else None
