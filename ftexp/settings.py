"""``python -m ftexp.settings`` tells what settings mean, what their values are, and which options a group has.

Everything is read from ``ftexp/config`` and ``conf``, where it is written beside what it explains.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from ftexp.cli.arguments import readable
from ftexp.cli.program import end_program, make_parser
from ftexp.config import register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.config.explanations import explained_fields, head_comment, purpose
from ftexp.config.known_keys import hint
from ftexp.config.root import SCHEMA, Config
from ftexp.config.uri import hide_credentials
from ftexp.errors import ConfigError

MISSING = "???"
# The group whose options set other groups; it has no settings of its own.
EXPERIMENT = "experiment"
OF_EXPERIMENTS = "Settings of several groups that belong together"


@dataclass(frozen=True, slots=True)
class Setting:
    """Keys that one text explains.

    Attributes:
        keys: their full names.
        values: the value of each with the given overrides, as YAML.
        allowed: the words that are allowed for each, if only some are.
        text: what they mean.
        option: the option of the group that has them, if the chosen one does not.
    """

    keys: tuple[str, ...]
    values: tuple[str, ...]
    allowed: tuple[tuple[str, ...], ...]
    text: str
    option: str | None = None


def main(arguments: list[str] | None = None) -> int:
    """Print the groups, or the settings that are asked for; returns the exit code."""
    what = "Show what settings mean, and their values with the given overrides."
    parser = make_parser("settings", what, "stage train.ema stage=partial")
    parser.add_argument("names", nargs="*", help="groups (train), settings (train.ema, ema) and overrides (stage=full)")
    given = parser.parse_args(arguments)

    def task() -> int:
        names = [one for one in given.names if "=" not in one]
        overrides = readable([one for one in given.names if "=" in one])
        register_schema()
        with initialize_config_dir(str(conf_dir())):
            composed = compose("config", overrides=overrides)
        parts = [_part(name, composed) for name in names]
        print(hide_credentials("\n\n".join(parts or [_groups()])))
        return 0

    return end_program(task)


def _groups() -> str:
    """One line for each group."""
    hints = get_type_hints(Config)
    first = {group: purpose(kind).partition(". ")[0].rstrip(".") for group, kind in hints.items()}
    lines = [_wrapped(f"{group:<10} {sentence}", "  ", " " * 13) for group, sentence in first.items()]
    lines.append(_wrapped(f"{EXPERIMENT:<10} {OF_EXPERIMENTS}", "  ", " " * 13))
    return "\n".join([*lines, "", "python -m ftexp.settings GROUP explains its settings."])


def _part(name: str, composed: DictConfig) -> str:
    """What is told of a group, or of the settings of a name."""
    if name == EXPERIMENT:
        return "\n\n".join([_wrapped(f"{name}: {OF_EXPERIMENTS}.", ""), _listed(name, _options(name))])
    return _group(name, composed) if name in composed else _some(name, composed)


def _group(group: str, composed: DictConfig) -> str:
    parts = [_wrapped(f"{group}: {purpose(get_type_hints(Config)[group])}", "")]
    if options := _options(group):
        parts.append(_listed(group, options))
    parts += map(_shown, _settings(group, composed))
    return "\n\n".join(parts)


def _some(name: str, composed: DictConfig) -> str:
    """The settings of this name, with or without its group.

    Raises:
        ConfigError: if there is none.
    """
    everything = [one for group in get_type_hints(Config) for one in _settings(group, composed)]
    found = [one for one in everything if any(key == name or key.endswith(f".{name}") for key in one.keys)]
    if not found:
        prefix, dot, _ = name.rpartition(".")
        beside = [key for one in everything for key in one.keys if key.startswith(f"{prefix}{dot}")]
        likely = hint(name, [key.removeprefix(f"{prefix}{dot}") for key in beside])
        raise ConfigError(f"There is no group or setting {name}.{likely} python -m ftexp.settings lists the groups.")
    return "\n\n".join(map(_shown, found))


def _listed(group: str, options: Sequence[str]) -> str:
    return "\n".join([f"Options, as {group}=NAME:", *options])


def _options(group: str) -> list[str]:
    """A line for each file in the folder of a group, with what its head says."""
    files = sorted((conf_dir() / group).glob("*.yaml"))
    if group == "model":
        return [_wrapped(f"{', '.join(file.stem for file in files)}. python -m ftexp.models shows one.", "  ")]
    kinds = SCHEMA.get(group, {})
    told = {file.stem: head_comment(file) or purpose(kinds[f"_{file.stem}"]) for file in files}
    return [_wrapped(f"{name}: {text}", "  ", "      ") for name, text in told.items()]


def _settings(group: str, composed: DictConfig) -> list[Setting]:
    """The settings of a group: first those of the chosen option, then what only other options have."""
    node = composed[group]
    chosen = OmegaConf.get_type(node)
    assert chosen is not None, "every group has a dataclass"
    values = OmegaConf.to_container(node, resolve=True)
    found = list(_of_kind(chosen, group, values))
    known = {key for one in found for key in one.keys}
    for name, kind in SCHEMA.get(group, {}).items():
        others = [key for key in get_type_hints(kind) if f"{group}.{key}" not in known]
        if kind is not chosen and others:
            defaults = OmegaConf.to_container(OmegaConf.structured(kind))
            for one in _of_kind(kind, group, defaults):
                if not known & set(one.keys):
                    found.append(Setting(one.keys, one.values, one.allowed, one.text, f"{group}={name.lstrip('_')}"))
    return found


def _of_kind(kind: type, prefix: str, values: Any) -> Iterator[Setting]:
    """The settings of a dataclass, and of the dataclasses in it, with these values (None: without any)."""
    hints = get_type_hints(kind)
    for one in explained_fields(kind, _alike(kind)):
        plain = [name for name in one.names if not _inner(hints[name])]
        if plain:
            shown = tuple(MISSING if values is None else _as_yaml(values[name]) for name in plain)
            words = tuple(_words(hints[name]) for name in plain)
            yield Setting(tuple(f"{prefix}.{name}" for name in plain), shown, words, one.text)
        for name in one.names:
            if inner := _inner(hints[name]):
                part = values[name] if isinstance(values, dict) and isinstance(values[name], dict) else None
                yield from _of_kind(inner, f"{prefix}.{name}", part)


def _alike(kind: type) -> tuple[type, ...]:
    """The dataclasses of its group, in which fields of one name mean the same."""
    return next((tuple(kinds.values()) for kinds in SCHEMA.values() if kind in kinds.values()), ())


def _inner(hint: Any) -> type | None:
    """The dataclass of a setting that has settings of its own, or of a list of them."""
    if get_origin(hint) is list:
        (hint,) = get_args(hint)
    return hint if is_dataclass(hint) and isinstance(hint, type) else None


def _words(hint: Any) -> tuple[str, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


def _as_yaml(value: Any) -> str:
    dumped: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return dumped.removesuffix("...\n").rstrip("\n")


def _shown(one: Setting) -> str:
    lines = []
    for key, value, words in zip(one.keys, one.values, one.allowed, strict=True):
        notes = [", ".join(words)] if words else []
        notes += [f"with {one.option}"] if one.option else []
        line = f"  {key}" if value in (MISSING, f"'{MISSING}'") else f"  {key} = {value}"
        lines.append(_wrapped("    # ".join([line.strip(), *notes]), "  ", "      "))
    return "\n".join([*lines, _wrapped(one.text, "      ")] if one.text else lines)


def _wrapped(text: str, indent: str, later: str | None = None) -> str:
    width = min(shutil.get_terminal_size().columns, 110)
    later = indent if later is None else later
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=later, break_on_hyphens=False)


if __name__ == "__main__":
    sys.exit(main())
