"""``python -m ftexp.learning_curve ...``: what more images would gain, by the learning curve of a head.

Its settings are those of a run. It writes ``learning_curve.json``, ``learning_curve.csv`` and ``learning_curve.png``.
"""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from ftexp.cli.command_line import guarded, run_command
from ftexp.config import Config
from ftexp.machine.interpreter import quick_imports, run_program

log = logging.getLogger("ftexp.learning_curve")  # not __main__, as which it may run

HELP = """ftexp.learning_curve tells what more images would gain, from heads that are trained on fewer.

  python -m ftexp.learning_curve data=imagefolder data.root=pictures
  python -m ftexp.learning_curve data=manifest data.file=photos.csv data.group_column=person probe.more=200

It takes the settings of python -m ftexp (group=option, group.key=value). The frozen pretrained network runs once over
train and val, never over test; its features are cached. Heads on these features are trained on nested subsets with the
same shares of the classes, and scored on folds that they have not seen. No group (data.group_column) and no set of
copies of an image is in two folds, and subsets have whole groups. A power law, error = a + b n^-c, goes through the
scores and is extrapolated to twice as many images at most. It holds for more images of the same kind (for groups: of
new ones), and for the head, whatever the stage is.
  probe.more=200          how many more images are told of; the default is a quarter, a half and all as many
  probe.folds=5           folds of each repeat
  probe.repeats=3         repeats with other folds and subsets
  runtime.seed=0          of folds and subsets
  train.metric=accuracy   the metric of the curve
  hydra.run.dir=FOLDER    the folder for the files; the default is outputs/DATE/TIME

Files: learning_curve.json (gains with 95 % bands, also for classes whose recall still rises), learning_curve.csv (all
scores by number of images), learning_curve.png, splits.csv."""


def job(composed: DictConfig) -> None:
    """Draw the learning curve of one data set."""
    guarded(composed, draw_and_write)


def draw_and_write(config: Config, folder: Path) -> None:
    """Score heads on more and more of the images, and write what was found to ``folder``."""
    with quick_imports():
        from ftexp.frozen_features import compute_features, refuse_undefined_metrics
        from ftexp.probe.cross_validation import draw_outer_folds
        from ftexp.probe.curve import choose_shares, learning_curve
        from ftexp.probe.features import Features
        from ftexp.report.learning_curve_files import steps_ahead, write_learning_curve

    settings, seed, metric = config.probe, config.runtime.seed, config.train.metric
    steps: list[int] = []

    def check(images: Features) -> None:
        refuse_undefined_metrics(config, images)
        steps.extend(steps_ahead(len(images.labels), settings.more))
        choose_shares(images, settings.folds)
        draw_outer_folds(images, settings.folds, seed)

    features, _ = compute_features(config, folder, check)
    curve = learning_curve(features, settings.folds, settings.repeats, seed, metric)
    for line in write_learning_curve(folder, curve, features.classes, metric, steps, seed):
        log.info(line)


def main() -> None:
    """Run the command line."""
    run_command(job, own_help=HELP)


if __name__ == "__main__":
    run_program(main)
