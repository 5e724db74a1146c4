"""Cross-validation by training: a run of the stage for every fold, scored on the images that it has not seen."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ftexp.config import Config
from ftexp.data.splitting.splits import Splits, build_splits, write_splits
from ftexp.data_identity import DataIdentity
from ftexp.errors import ConfigError, UserError
from ftexp.evaluation.scores import Scores
from ftexp.files.json_files import read_json, write_json
from ftexp.files.run_files import FOLDS, status_of
from ftexp.frozen_features import Images, read_images, without_values
from ftexp.inference.run_evaluation import open_run
from ftexp.inference.scoring import labelled, score_images
from ftexp.machine.runtime import prepare_runtime
from ftexp.models.catalogue import locate_weights
from ftexp.preparation.prepare import plan
from ftexp.preparation.prepared import run_name
from ftexp.probe.cross_validation import FoldScores, Integers, draw_folds, draw_outer_folds
from ftexp.probe.features import Features
from ftexp.progress_lines import ProgressLines
from ftexp.run import run
from ftexp.run_folder import start_again
from ftexp.run_identity import RunIdentity
from ftexp.tracking.factory import make_tracker
from ftexp.tracking.tracker import PARENT_RUN

# The file beside the folders of the runs that knows their common MLflow run.
PARENT = "tracking.json"
# A class has to be in the training and the validation part of a fold's run, and in the fold.
MIN_GROUPS = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fold:
    """One run.

    Attributes:
        repeat, number: of the fold, from 0.
        held: int64 [M], its images, as rows of the images of train and val.
        splits: the splits of the run, whose test split is the fold; nobody opens it as one.
    """

    repeat: int
    number: int
    held: Integers
    splits: Splits

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return f"{self.repeat + 1}-{self.number + 1}"


def read_independent(config: Config, folder: Path) -> tuple[Images, Features]:
    """Read the data, and what belongs together.

    Args:
        config: the settings of the runs.
        folder: where ``splits.csv`` and ``bad_images.csv`` are written.

    Returns:
        The images, and those of train and val once more as features [N, 0]: labels and groups, but no values.

    Raises:
        UserError: for a mistake in the settings or the data.
    """
    runtime = prepare_runtime(config.runtime)
    plan(config)
    locate_weights(config.model)
    images = read_images(config, folder, runtime.device)
    return images, without_values(images)


def train_folds(
    config: Config, images: Images, features: Features, folder: Path, overrides: Sequence[str], names: Sequence[str]
) -> list[FoldScores]:
    """Train the stage without each fold, one run after the other, and score it on the fold.

    The rest of the images is cut into train and val, which chooses the best epoch, in the shares of the data's own
    splits. A fold that was finished by an earlier call with the same folder is not trained again.

    Args:
        config: the settings of the runs.
        images, features: what ``read_independent`` gave.
        folder: the runs are in ``folds/REPEAT-FOLD`` of it.
        overrides: those of the command.
        names: the metrics that will be asked for.

    Raises:
        UserError: if there are too few images, or a fold in the folder has other settings or images.
        DivergedError: if the loss of an epoch of a run is not finite and no retry is left.
    """
    folds = list(_cut(config, images, features))
    log.info(
        "folds   %d runs in %s; after an interruption, the same command with hydra.run.dir=%s trains what is not "
        "finished. Test (%d images) is not opened.",
        len(folds),
        folder / FOLDS,
        folder,
        images.splits.test.num_samples,
    )
    missing = [fold.name for fold in folds if status_of(folder / FOLDS / fold.name) != "finished"]
    scored, progress = [], ProgressLines("folds", "finished", "runs", len(missing))
    with _one_parent(config, folder / FOLDS):
        for fold in folds:
            place = folder / FOLDS / fold.name
            _train(config, place, fold.splits, overrides)
            if fold.name in missing:
                progress.at(missing.index(fold.name) + 1)
            scores = _score(place, features.take(fold.held)).needed_for(names)
            scored.append(FoldScores(fold.repeat, fold.number, fold.held, scores))
    return scored


def _cut(config: Config, images: Images, features: Features) -> Iterator[Fold]:
    labels, groups = features.labels.numpy(), features.groups.numpy()
    few = [name for k, name in enumerate(features.classes) if len(np.unique(groups[labels == k])) < MIN_GROUPS]
    if few:
        raise ConfigError(
            f"probe.real_folds=true needs {MIN_GROUPS} independent images of every class, to train on, to choose the "
            f"best epoch by, and to score. Train and val have fewer of {', '.join(few)}: images of one group and "
            "copies of one image count once. Add images, or use probe.real_folds=false."
        )
    wanted = max(2, round(len(labels) / max(1, len(images.splits.val))))
    settings, seed = config.probe, config.runtime.seed
    for repeat in range(settings.repeats):
        for number, held in enumerate(draw_outer_folds(features, settings.folds, seed + repeat)):
            rest = np.setdiff1d(np.arange(len(labels)), held)
            remaining = features.take(rest)
            num_parts = min(wanted, remaining.num_groups, int(np.bincount(labels[rest]).max()))
            val = rest[draw_folds(remaining, num_parts, seed + repeat)[0]]
            split_of = np.full(len(labels), "train")
            split_of[val], split_of[held] = "val", "test"
            assigned = [replace(s, split=str(split)) for s, split in zip(features.samples, split_of, strict=True)]
            splits = build_splits(assigned, images.splits.digests)
            yield Fold(repeat, number, held, replace(splits, copies=images.ties))


def _train(config: Config, place: Path, splits: Splits, overrides: Sequence[str]) -> None:
    """Train the run of a fold, unless it is finished."""
    if status_of(place) == "finished":
        try:
            known = RunIdentity.read(place)
            known.check_settings(config, force=config.resume.force)
            known.data.check(DataIdentity.of(splits))
        except UserError as error:
            raise ConfigError(f"{place} is a fold of another cross-validation; use another folder. {error}") from error
        log.info("folds   %s is finished already", place)
        return
    start_again(place, finished=False)
    place.mkdir(parents=True, exist_ok=True)
    write_splits(place / "splits.csv", splits)
    log.info("folds   %s: train %d, val %d, scored %d", place, len(splits.train), len(splits.val), len(splits.test))
    run(config, place, score_test=False, resumable=False, overrides=overrides, splits=splits)


def _score(place: Path, held: Features) -> Scores:
    """The scores of a fold's images, in their order, by its run."""
    classifier, known = open_run(str(place), None)
    assert known is not None
    return score_images(classifier, labelled(held.samples), known.identity.batch_size).scores


@contextmanager
def _one_parent(config: Config, folder: Path) -> Iterator[None]:
    """The runs that start within the ``with`` belong to one run in the tracking store."""
    folder.mkdir(parents=True, exist_ok=True)
    known = read_json(folder / PARENT)["mlflow_run_id"] if (folder / PARENT).exists() else None
    tracker = make_tracker(config.tracking, f"cross-validation of {run_name(config, plan(config))}", known)
    if tracker.run_id is not None:
        write_json(folder / PARENT, {"mlflow_run_id": tracker.run_id})
        os.environ[PARENT_RUN] = tracker.run_id
    try:
        yield
    except BaseException as error:
        tracker.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    else:
        tracker.close("FINISHED")
    finally:
        os.environ.pop(PARENT_RUN, None)
