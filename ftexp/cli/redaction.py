"""Removes passwords from what Hydra writes and logs, since it shows overrides and configuration as they were given."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from hydra.conf import HydraConf
from hydra.types import RunMode

from ftexp.config.uri import hide_credentials
from ftexp.files.whole_file import replaced_whole


class RedactingFormatter(logging.Formatter):
    """Hides credentials in everything that is logged, including tracebacks and the lines of Hydra itself."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as usual, then replace passwords."""
        return hide_credentials(super().format(record))


def redact_saved(settings: HydraConf) -> None:
    """Replace credentials in the files that Hydra has just written for this job.

    Args:
        settings: Hydra's own configuration of the job.
    """
    files: list[Path] = []
    if settings.output_subdir is not None:
        files += (Path(settings.runtime.output_dir) / settings.output_subdir).glob("*.yaml")
    if settings.mode == RunMode.MULTIRUN:
        files.append(Path(settings.sweep.dir) / "multirun.yaml")
    redact(files)


def redact(files: Iterable[Path]) -> None:
    """Rewrite the files that hold credentials, each atomically; files that do not exist are skipped."""
    for file in files:
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        hidden = hide_credentials(text)
        if hidden != text:
            with replaced_whole(file) as unfinished:
                unfinished.write_text(hidden, encoding="utf-8")
