"""The options in the text of ``--help``: read from ``conf/``, so that a new one stands there by itself."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import yaml
from omegaconf import OmegaConf

RESOLVER = "options"


def register_options(conf: Path) -> None:
    """Let ``${options:GROUP}`` in ``conf/hydra/help`` stand for the options of a group; to be called once."""
    OmegaConf.register_resolver(RESOLVER, partial(list_options, conf), replace=True)


def list_options(conf: Path, group: str) -> str:
    """The options of a group as text: the one that is taken when none is chosen first, with a star before it.

    Args:
        conf: the folder of the groups, with ``config.yaml`` in it.
    """
    names = sorted(file.stem for file in (conf / group).glob("*.yaml"))
    chosen = _defaults(conf).get(group)
    star = "*" if chosen else " "
    return f"{star} {', '.join(sorted(names, key=lambda name: name != chosen))}"


@cache
def _defaults(conf: Path) -> dict[str, str]:
    """Group -> the option that ``config.yaml`` takes."""
    entries = yaml.safe_load((conf / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return {group: option for entry in entries if isinstance(entry, dict) for group, option in entry.items()}
