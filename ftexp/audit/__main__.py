"""``python -m ftexp.audit data=...``: cut the splits and look for leaks, without training.

Exit code 0 when no leak across the splits was found, 1 otherwise; ``splits.csv`` and ``leaks.csv`` are in the folder.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from ftexp.__main__ import guarded, main
from ftexp.config import Config
from ftexp.errors import ConfigError


def job(composed: DictConfig) -> None:
    """One audit."""
    guarded(composed, audit_once)


def audit_once(config: Config, folder: Path) -> None:
    """Read, cut and audit the configured data, and leave the tables in ``folder``."""
    if config.audit.on_leak == "off":
        raise ConfigError("audit.on_leak=off leaves nothing to do here: choose fail or warn.")
    from ftexp.prepare import read_data
    from ftexp.training.runtime import prepare_runtime

    read_data(config, folder, prepare_runtime(config.runtime).device)


if __name__ == "__main__":
    main(job)
