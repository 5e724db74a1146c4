"""``python -m ftexp.cross_validate ...``: the accuracy of a head on the frozen network, by repeated grouped folds.

With ``real_folds=true`` it is that of the stage, which is trained for every fold.

Its settings are those of a run. It writes ``cross_validation.json``, ``folds.csv``, ``classes.csv``, ``confusion.csv``
and ``confusion_matrix.png``.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ftexp.cli.command_line import guarded, run_command
from ftexp.cli.resume_arguments import own_overrides
from ftexp.config import Config
from ftexp.machine.interpreter import quick_imports, run_program

log = logging.getLogger("ftexp.cross_validate")  # not __main__, as which it may run

HELP = """ftexp.cross_validate scores a head on the frozen network by cross-validation, or a stage, in a run per fold.

  python -m ftexp.cross_validate data=imagefolder data.root=pictures
  python -m ftexp.cross_validate data=manifest data.file=photos.csv data.group_column=person probe.repeats=10
  python -m ftexp.cross_validate data=imagefolder data.root=pictures stage=partial real_folds=true probe.repeats=1

It takes the settings of python -m ftexp (group=option, group.key=value). The frozen pretrained network runs once over
train and val, never over test; its features are cached, and of thousands of images, the heads then take seconds.
It always scores a head on these features (a probe), whatever the stage is: what more a stage gains is told by
real_folds=true, which trains it for every fold, one run after the other. Folds are stratified; no group
(data.group_column) and no set of copies of an image is in two folds.
  probe.folds=5           folds of each repeat
  probe.repeats=3         repeats with other folds
  runtime.seed=0          of the folds
  train.metric=NAME       is scored too, where it needs probabilities
  real_folds=true         trains the stage for every fold; a part of the rest chooses the best epoch, in place of val
  hydra.run.dir=FOLDER    the folder for the files; the default is outputs/DATE/TIME; folds that are finished in it are
                          not trained again

Files: cross_validation.json (metrics with 95 % intervals), folds.csv, classes.csv, confusion.csv and
confusion_matrix.png (all folds and repeats together), splits.csv; folds/REPEAT-FOLD is the folder of a run."""


def job(composed: DictConfig) -> None:
    """Cross-validate the head of one data set."""
    guarded(composed, validate_and_write)


def validate_and_write(config: Config, folder: Path) -> None:
    """Score the head, or with ``probe.real_folds`` the stage, on held-out folds, and write what was found."""
    with quick_imports():
        from ftexp.frozen_features import compute_features, scored_metrics
        from ftexp.probe.cross_validation import cross_validate, draw_outer_folds
        from ftexp.probe.features import Features
        from ftexp.real_folds import read_independent, train_folds
        from ftexp.report.cross_validation_files import write_cross_validation

    settings, seed, trained = config.probe, config.runtime.seed, None
    if settings.real_folds:
        images, features = read_independent(config, folder)
        names, trained = scored_metrics(config, features), f"stage={HydraConfig.get().runtime.choices['stage']}"
        overrides = own_overrides(HydraConfig.get().overrides.task)
        folds = train_folds(config, images, features, folder, overrides, names)
    else:
        names = []

        def check(images: Features) -> None:
            names.extend(scored_metrics(config, images))
            draw_outer_folds(images, settings.folds, seed)

        features, _ = compute_features(config, folder, check)
        folds = list(cross_validate(features, settings.folds, settings.repeats, seed, names))
    for line in write_cross_validation(folder, features, folds, names, seed, trained):
        log.info(line)


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = [f"probe.{text}" if text.startswith("real_folds=") else text for text in sys.argv[1:]]
    run_command(job, own_help=HELP)


if __name__ == "__main__":
    run_program(main)
