"""Recognises by the names in a folder that a program wrote it, such as a run of ftexp: its images are not data."""

from __future__ import annotations

import os
from collections.abc import Collection

from ftexp.data.sources.written_images import MARK

# A folder that contains all names of one line was written by a program: ftexp and Hydra; Lightning, Ultralytics and
# timm; and what makes environments for Python.
_NAMES = f"""
    run.json
    sweep.json
    .hydra
    ftexp.log
    {MARK}
    hparams.yaml
    args.yaml results.csv
    args.yaml summary.csv
    pyvenv.cfg
    conda-meta
"""
_TOGETHER = tuple(frozenset(line.split()) for line in _NAMES.split("\n") if line.strip())
_ANY = frozenset[str]().union(*_TOGETHER)
# The files of TensorBoard, and of Weights & Biases.
_START, _END = "events.out.tfevents.", ".wandb"
# MLflow names the folders of runs and models with 32 hexadecimal digits, and puts this folder into them.
_ARTIFACTS = "artifacts"


def is_mark(name: str) -> bool:
    """Whether the name of a file or folder can say that a program wrote the folder that it is in."""
    return name in _ANY or name == _ARTIFACTS or _is_log(name)


def is_written_by_a_program(folder: str, marks: Collection[str]) -> bool:
    """Whether a program wrote a folder.

    Args:
        folder: its path.
        marks: the names in it for which ``is_mark`` is true.
    """
    if _ARTIFACTS in marks and _is_hexadecimal(os.path.basename(folder).removeprefix("m-")):
        return True
    return any(map(_is_log, marks)) or any(names.issubset(marks) for names in _TOGETHER)


def _is_log(name: str) -> bool:
    return name.startswith(_START) or name.endswith(_END)


def _is_hexadecimal(name: str) -> bool:
    return len(name) == 32 and all(digit in "0123456789abcdef" for digit in name)
