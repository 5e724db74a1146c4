"""``python -m ftexp.labels ...``: which labels are probably wrong; its settings are those of a run.

It writes ``labels.csv``, ``labels.html`` and ``cleaned.csv``.
"""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from ftexp.cli.command_line import guarded, run_command
from ftexp.config import Config
from ftexp.machine.interpreter import quick_imports, run_program

log = logging.getLogger("ftexp.labels")  # not __main__, as which it may run

HELP = """ftexp.labels lists labels that are probably wrong. It trains no network and changes no file of yours.

  python -m ftexp.labels data=imagefolder data.root=pictures
  python -m ftexp.labels data=manifest data.file=photos.csv data.group_column=person probe.odds=19

It takes the settings of python -m ftexp (group=option, group.key=value). The frozen pretrained network runs once over
train and val, never over test; its features are cached. Each label is judged by heads that were trained without the
image, its group and its copies.
  probe.odds=4                 a label is a suspect if another class is at least so many times as probable
  probe.cleaned=drop|relabel   cleaned.csv leaves suspects out, or gives them the likely label
  probe.neighbours=3           nearest images of other groups, for each image
  probe.gallery=60             how many images the page shows
  hydra.run.dir=FOLDER         the folder for the files; the default is outputs/DATE/TIME

Files: labels.csv (all images, the least probable label first), labels.html (the first of them, with their nearest
neighbours), cleaned.csv (a manifest without suspects; the last line of the output shows how to use it), splits.csv."""


def job(composed: DictConfig) -> None:
    """Check the labels of one data set."""
    guarded(composed, check_and_write)


def check_and_write(config: Config, folder: Path) -> None:
    """Judge the labels of train and val, and write the table, the page and the cleaned manifest to ``folder``."""
    with quick_imports():
        from ftexp.frozen_features import compute_features
        from ftexp.probe.label_check import check_labels, nearest_neighbours
        from ftexp.report.label_files import judge, write_cleaned, write_labels

    settings = config.probe
    features, splits = compute_features(config, folder)
    check = check_labels(features, settings.odds)
    judged = judge(features, check, nearest_neighbours(features, settings.neighbours))
    write_labels(folder, judged, settings)
    log.info(
        "labels  %d of %d are suspects (another class is %g times as probable, or more); heads that did not see an "
        "image agree with %.1f %% of the labels: %s",
        check.suspects.sum(),
        len(judged),
        settings.odds,
        100 * check.accuracy,
        folder / "labels.html",
    )
    log.info(write_cleaned(folder / "cleaned.csv", judged, splits.test.listing(), settings))


def main() -> None:
    """Run the command line."""
    run_command(job, own_help=HELP)


if __name__ == "__main__":
    run_program(main)
