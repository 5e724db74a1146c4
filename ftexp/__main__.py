"""``python -m ftexp``: nothing but the Hydra entry."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from ftexp.config import parse, register_schema


def conf_dir() -> Path:
    """The configuration groups: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def main():
    register_schema()
    @hydra.main(config_path=str(conf_dir()), config_name="config")
    def app(cfg: DictConfig):
        print(parse(cfg))
    app()

if __name__ == "__main__":
    main()
