"""``python -m ftexp.audit data=...``: split the data and search for leaks, without training.

The exit code is 0 when no leak between the splits was found, and 1 otherwise. It writes ``splits.csv`` and
``leaks.csv``.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from ftexp.cli.command_line import guarded, run_command
from ftexp.config import Config
from ftexp.errors import ConfigError
from ftexp.machine.interpreter import quick_imports, run_program

HELP = """ftexp.audit splits the data and searches for leaks between the splits, without training.

  python -m ftexp.audit data=imagefolder data.root=pictures
  python -m ftexp.audit data=manifest data.file=photos.csv data.split=group data.group_column=person

It takes the settings of python -m ftexp; these matter here (group.key=value):
  data=digits|imagefolder|manifest|torchvision|huggingface|webdataset
    python -m ftexp.settings data               explains them and their keys
  data.split=auto|stratified|group|time|given   data.tie_duplicates=true keeps copies in one split
  data.on_bad_image=error|skip                  what to do with files that cannot be decoded
  audit.on_leak=fail|warn                       warn: list the leaks, but end with exit code 0
  audit.features=true|false                     false: find near duplicates by perceptual hashes alone; faster
  audit.geometry=false                          do not look for copies that were turned, framed, recoloured, written on
  audit.on_scene=warn|fail|ignore               photographs of one scene in two splits
  audit.write_groups=groups.csv                 images of one picture or scene; data.groups=groups.csv splits by them
  audit.cache=FILE|null                         keeps the fingerprints of images, by content, for later audits
  hydra.run.dir=FOLDER                          the folder for the files; the default is outputs/DATE/TIME

Files: splits.csv (path,label,split,group,time; can be used as a manifest), leaks.csv
(kind,severity,split_a,path_a,split_b,path_b,score,inliers), leaks.png (the worst pairs), bad_images.csv.
Exit code: 0 without findings of severity fail; 1 with such findings, or when a setting or the data is wrong."""


def job(composed: DictConfig) -> None:
    """Do one audit."""
    guarded(composed, audit_once)


def audit_once(config: Config, folder: Path) -> None:
    """Read, split and audit the configured data, and write the tables to ``folder``."""
    if config.audit.on_leak == "off":
        raise ConfigError("audit.on_leak=off switches the audit off, which is all this command does: set fail or warn.")
    with quick_imports():
        from ftexp.machine.runtime import prepare_runtime
        from ftexp.preparation.read_data import read_data

    read_data(config, folder, prepare_runtime(config.runtime).device)


def main() -> None:
    """Run the command line."""
    run_command(job, own_help=HELP)


if __name__ == "__main__":
    run_program(main)
