"""``ftexp.load``: from the name of a run, a checkpoint or a registered model to a classifier."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ftexp.config.model import ModelConfig
from ftexp.data.loading.limits import ImageLimits
from ftexp.errors import CheckpointError
from ftexp.exporting.exported import load_exported
from ftexp.exporting.formats import format_of
from ftexp.files.file_format import reading
from ftexp.files.run_files import BEST, FOLDS, IDENTITY, RESULT, status_of
from ftexp.inference.calibration import read_calibration
from ftexp.inference.classifier import Classifier
from ftexp.inference.engine import NetworkEngine
from ftexp.inference.mlflow_models import fetch_checkpoint, is_in_mlflow
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network, Tap
from ftexp.models.catalogue import build_network
from ftexp.models.depth_head import add_taps
from ftexp.models.weights_file import why_incomplete
from ftexp.preprocessing import Preprocessing
from ftexp.training.checkpoints.checkpoint import load_checkpoint, restore_weights

LATEST = "latest"
OUTPUTS = Path("outputs")


def load(what: str | os.PathLike[str], *, device: str = "auto", trust: bool = False) -> Classifier:
    """Load a trained classifier; nothing in its file is executed.

    Args:
        what: the folder of a run, a checkpoint such as ``best.pt``, ``latest``: the newest finished run under
            ``outputs/``; a file that ``python -m ftexp.export`` wrote; or of MLflow ``models:/NAME@best`` or
            ``runs:/ID``, in the store that ``mlflow`` was given, else in that of ``MLFLOW_TRACKING_URI``, else in
            ``mlflow.db`` in the working folder, as when training.
        device: where it computes: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; of exported files the CPU.
        trust: that a ``.pt2`` file, of ``--format torch_export``, may execute code, which torch cannot prevent.

    Raises:
        CheckpointError: when there is no such run or file, the run did not finish, or the file is damaged.
        ConfigError: for a ``.pt2`` file without ``trust``.
        DeviceError: when the device is not there, or the runtime of an exported file is not installed.
    """
    path = find_checkpoint(what)
    if format_of(path) is not None:
        return load_exported(path, device, trust=trust)
    return load_checkpoint_file(path, device, str(what) if is_in_mlflow(what) else None)


def find_checkpoint(what: str | os.PathLike[str]) -> Path:
    """The checkpoint that ``ftexp.load`` means by a name; arguments and errors as there."""
    if is_in_mlflow(what):
        return fetch_checkpoint(str(what))
    if str(what) == LATEST:
        return newest_finished(OUTPUTS) / BEST
    path = Path(what).expanduser()
    if path.is_dir():
        return _checkpoint_of_run(path)
    if not path.exists():
        raise CheckpointError(f"{what}: there is no such run and no such file. Give the folder of a run, or {LATEST}.")
    return path


def load_checkpoint_file(path: Path, device: str | Runtime = "auto", run: str | None = None) -> Classifier:
    """Load a classifier from a checkpoint, with the calibration that lies beside it.

    Args:
        device: as of ``load``, or the runtime of a run.
        run: what ``load`` takes for it; None: the folder that it lies in.

    Raises:
        CheckpointError: when the file is damaged, or no checkpoint of ftexp.
    """
    network, classes, content = read_network(path)
    calibration = read_calibration(path)
    engine = NetworkEngine(network, calibration.temperature if calibration else 1.0, device)
    run = run or str(path.parent.parent if path.parent.name == Path(BEST).parent.name else path)
    with reading(path):
        limits = ImageLimits.of_checkpoint(content)
    return Classifier(engine, classes, network.preprocessing, str(path), run, calibration, limits)


def read_network(path: Path) -> tuple[Network, tuple[str, ...], dict[str, Any]]:
    """The network in a checkpoint, in eval mode on the CPU.

    Returns:
        The network, the names of its classes in the order of its logits, and all that the checkpoint holds.

    Raises:
        CheckpointError: when the file is damaged, or no checkpoint of ftexp.
    """
    content = load_checkpoint(path)
    if (reason := why_incomplete(path, content)) is not None:
        raise CheckpointError(reason)
    with reading(path):
        settings = ModelConfig(**{**content["config"]["model"], "weights": None, "class_map": {}})
        taps = [Tap.from_dict(tap) for tap in content["taps"]]
        preprocessing, class_to_idx = Preprocessing.from_dict(content["preprocessing"]), content["class_to_idx"]
    network = build_network(settings, None, len(class_to_idx), preprocessing.image_size)
    network.preprocessing = preprocessing
    if taps:
        with reading(path):
            network, _ = add_taps(network, taps)
    restore_weights(network, content["model"], path)
    network.module.eval()
    return network, tuple(sorted(class_to_idx, key=class_to_idx.__getitem__)), content


def newest_finished(outputs: Path) -> Path:
    """The folder of the run that ended last of those that finished, without the folds of cross-validations.

    Raises:
        CheckpointError: when there is none.
    """
    runs = (file for file in outputs.glob(f"**/{RESULT}") if file.parents[1].name != FOLDS)
    finished = [file for file in runs if _status(file.parent) == "finished"]
    if not finished:
        raise CheckpointError(f"No run has finished under {outputs}{os.sep}. Give the folder of one.")
    return max(finished, key=lambda file: (file.stat().st_mtime_ns, str(file))).parent


def _checkpoint_of_run(folder: Path) -> Path:
    if not any((folder / name).exists() for name in (IDENTITY, RESULT, BEST)):
        raise CheckpointError(f"{folder} is not the folder of a run: it has neither {IDENTITY} nor {BEST}.")
    best = folder / BEST
    instead = f" The best epoch that it reached is loaded by its file: {best}." if best.exists() else ""
    try:
        status = status_of(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{instead}") from error
    if (status != "finished" and (folder / IDENTITY).exists()) or not best.exists():
        ended = "has not finished" if status in (None, "finished") else f"ended as {status}"
        raise CheckpointError(f"The run in {folder} {ended}.{instead}")
    return best


def _status(folder: Path) -> str | None:
    """How a run ended; None where it has not, or where its ``result.json`` cannot be read."""
    try:
        return status_of(folder)
    except CheckpointError:
        return None
