"""The networks that ``ftexp.compare_models`` is given by name, as settings of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hydra import compose

from ftexp.cli.arguments import readable
from ftexp.config import Config, parse
from ftexp.config.conf_dir import conf_dir
from ftexp.errors import ConfigError, closest

TIMM = "timm/"
EXAMPLE = "'models=[efficientnet_lite0,resnet50]'"
FORMS = (
    "Give names of python -m ftexp.models, or of timm's (timm/NAME where both have one), each with @WEIGHTS where they "
    "are not the default ones"
)


@dataclass(frozen=True, slots=True)
class NamedModel:
    """One network of the list.

    Attributes:
        given: as it stands in the list.
        config: the settings of a run with this network.
    """

    given: str
    config: Config


def named_models(given: Sequence[str], overrides: Sequence[str]) -> list[NamedModel]:
    """The settings of a run with each network; Hydra has to be initialised.

    Args:
        given: names of options of the group ``model`` or of timm's networks, each with ``@WEIGHTS`` if these are not
            ``model.weights``: a file, the name of published ones, or null.
        overrides: those of the command.

    Raises:
        ConfigError: for a name that does not exist, a network that is given twice, fewer than two of them, or
            overrides that choose the network otherwise.
    """
    for override in overrides:
        if override.partition("=")[0] in ("model", "model.name"):
            raise ConfigError(f"{override} chooses one network, and this command compares several: {EXAMPLE}.")
    if len(given) < 2:
        one = f"models=[{given[0]}] is one network; python -m ftexp.cross_validate scores one" if given else ""
        raise ConfigError(f"{one or 'The networks to compare are missing'}. Give two or more: {EXAMPLE}.")
    if twice := [name for name in given if given.count(name) > 1]:
        raise ConfigError(f"{twice[0]} is given twice in models. Name each network once.")
    return [NamedModel(name, parse(compose("config", [*overrides, *_overrides_of(name)]))) for name in given]


def options() -> list[str]:
    """The names of the options of the group ``model``, without ``timm``."""
    return sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml") if file.stem != "timm")


def _overrides_of(given: str) -> list[str]:
    name, at, weights = given.partition("@")
    if at and not weights:
        raise ConfigError(f"{given} has no weights after the @. {FORMS}: {name}@null, {name}@FILE.")
    chosen = [f"model={name}"] if name in options() else ["model=timm", f"model.name={_of_timm(name)}"]
    return [*chosen, *(readable([f"model.weights={weights}"]) if at else [])]


def _of_timm(name: str) -> str:
    import timm  # takes seconds, and most names are options

    wanted = name.removeprefix(TIMM)
    architecture = wanted.partition(".")[0]
    if timm.is_model(architecture):
        return wanted
    match = closest(architecture, [*options(), *timm.list_models()], 0.6)
    meant = f" Did you mean '{match}'?" if match else ""
    raise ConfigError(f"models: there is no network '{name}'.{meant} {FORMS}.")
