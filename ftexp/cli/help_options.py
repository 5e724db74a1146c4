"""The options in the text of ``--help``, which are read from ``conf/``, so that new ones appear automatically."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import yaml
from omegaconf import OmegaConf

RESOLVER = "options"


def register_options(conf: Path) -> None:
    """Make ``${options:GROUP}`` in ``conf/hydra/help`` resolve to the options of a group. Call it once."""
    OmegaConf.register_resolver(RESOLVER, partial(list_options, conf), replace=True)


def help_of_a_run(conf: Path) -> str:
    """What ``python -m ftexp --help`` prints, read from ``conf/hydra/help/short.yaml`` as Hydra would.

    Hydra composes all settings for it and lists all groups, which takes longer than everything else.
    """
    register_options(conf)
    help_config = OmegaConf.load(conf / "hydra" / "help" / "short.yaml")
    return str(OmegaConf.create({"hydra": {"help": help_config}}).hydra.help.template)


def list_options(conf: Path, group: str) -> str:
    """List the options of a group as text; the default comes first, with a star before it.

    Args:
        conf: the folder of the config groups, which has ``config.yaml`` in it.
        group: the name of the group.
    """
    names = sorted(file.stem for file in (conf / group).glob("*.yaml"))
    chosen = _defaults(conf).get(group)
    star = "*" if chosen else " "
    return f"{star} {', '.join(sorted(names, key=lambda name: name != chosen))}"


@cache
def _defaults(conf: Path) -> dict[str, str]:
    """Group -> its default option in ``config.yaml``."""
    entries = yaml.safe_load((conf / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return {group: option for entry in entries if isinstance(entry, dict) for group, option in entry.items()}
