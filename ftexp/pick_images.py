"""``python -m ftexp.pick_images probe.unlabelled=FOLDER ...``: which images to label next.

Its settings are those of a run. It writes ``picks.csv`` and ``picks.html``.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from omegaconf import DictConfig

from ftexp.cli.command_line import guarded, run_command
from ftexp.config import Config
from ftexp.errors import ConfigError
from ftexp.machine.interpreter import quick_imports, run_program

log = logging.getLogger("ftexp.pick_images")

HELP = """ftexp.pick_images picks the images of a folder whose labels would help most. It moves no file.

  python -m ftexp.pick_images data=imagefolder data.root=pictures probe.unlabelled=new_pictures probe.count=50

It takes the settings of python -m ftexp (group=option, group.key=value), which name the images that have labels. The
frozen pretrained network runs once over their train and val, never over test, and over the new images; its features are
cached. A head of the labelled images says of which new ones it is unsure. Those are picked that have many others like
them, of which it is unsure too, and that are unlike the labelled images and each other. Copies of labelled images, test
ones too, are never picked, and of copies of one image only one. Files that cannot be read are left out and listed.
  probe.unlabelled=FOLDER   images without labels, in the folder and all folders below it
  probe.count=50            how many are picked
  hydra.run.dir=FOLDER      the folder for the files; the default is outputs/DATE/TIME

Files: picks.csv (rank, path, probable label, its probability, the second, why), picks.html (the same with pictures),
unreadable.csv, splits.csv. The first ones help most: those of a smaller count are the first of a larger one."""


def job(composed: DictConfig) -> None:
    """Pick from one folder."""
    guarded(composed, pick_and_write)


def pick_and_write(config: Config, folder: Path) -> None:
    """Pick images of the unlabelled folder, and write the table and the page to ``folder``."""
    unlabelled = config.probe.unlabelled
    if unlabelled is None:
        raise ConfigError(
            "probe.unlabelled is not given. Name the folder of images to pick from: probe.unlabelled=FOLDER"
        )
    if not os.path.isdir(os.path.expanduser(unlabelled)):
        raise ConfigError(f"probe.unlabelled={unlabelled} is not a folder. Name a folder of images without labels.")
    with quick_imports():
        from ftexp.probe.picking import pick_images
        from ftexp.report.pick_files import write_picks
        from ftexp.unlabelled_images import compute_with_unlabelled

    features, candidates = compute_with_unlabelled(config, folder)
    picks = pick_images(features, candidates.values, config.probe.count)
    write_picks(folder, candidates.samples, picks, features.classes)
    log.info("picked  %d of %d images: %s", len(picks), len(candidates.samples), folder / "picks.html")


def main() -> None:
    """Run the command line."""
    run_command(job, own_help=HELP)


if __name__ == "__main__":
    run_program(main)
