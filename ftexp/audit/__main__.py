"""``python -m ftexp.audit data=...``: cut the splits and look for leaks, without training.

Exit code 0 when no leak across the splits was found, 1 otherwise; ``splits.csv`` and ``leaks.csv`` are in the folder.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from ftexp.cli.command_line import guarded, run_command
from ftexp.config import Config
from ftexp.errors import ConfigError
from ftexp.machine.interpreter import end_process, garbage_left_alone

HELP = """ftexp.audit cuts the splits and looks for leaks between them, without training.

  python -m ftexp.audit data=imagefolder data.root=pictures
  python -m ftexp.audit data=manifest data.file=photos.csv data.split=group data.group_column=person

It takes the settings of python -m ftexp; these matter here (group.key=value):
  data=digits|imagefolder|manifest|torchvision|huggingface   and the keys of each: see README.md
  data.split=auto|stratified|group|time|given   data.tie_duplicates=true: copies stay in one split
  data.on_bad_image=error|skip                  files that cannot be decoded
  audit.on_leak=fail|warn                       warn: list the leaks, but end with exit code 0
  audit.features=true|false                     false: near duplicates by perceptual hashes alone; faster
  audit.cache=FILE|null                         what was seen of each image, by content, for the next time
  hydra.run.dir=FOLDER                          where the files go; otherwise outputs/DATE/TIME

Files: splits.csv (path,label,split,group,time; can be fed back as a manifest), leaks.csv
(kind,severity,split_a,path_a,split_b,path_b,score), leaks.png (the worst pairs), bad_images.csv.
Exit code: 0 when nothing of severity fail was found, 1 when something was, or when a setting or the data is wrong."""


def job(composed: DictConfig) -> None:
    """One audit."""
    guarded(composed, audit_once)


def audit_once(config: Config, folder: Path) -> None:
    """Read, cut and audit the configured data, and leave the tables in ``folder``."""
    if config.audit.on_leak == "off":
        raise ConfigError("audit.on_leak=off leaves nothing to do here: choose fail or warn.")
    with garbage_left_alone():
        from ftexp.machine.runtime import prepare_runtime
        from ftexp.prepare import read_data

    read_data(config, folder, prepare_runtime(config.runtime).device)


def main() -> None:
    """The command line."""
    run_command(job, own_help=HELP)


if __name__ == "__main__":
    main()
    end_process()
