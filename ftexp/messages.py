"""One clear message for each mistake that Hydra, OmegaConf or ftexp finds in a command or a config file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from ftexp.config import SCHEMA
from ftexp.errors import DivergedError, UserError, nearest

# hydra/launcher=NAME -> the extra of ours that brings it.
LAUNCHERS = {"joblib": "launchers", "submitit_local": "launchers", "submitit_slurm": "launchers", "ray": "ray"}


def explain(error: BaseException) -> str | None:
    """The message for a user's mistake; None for anything else, which deserves its traceback."""
    if isinstance(error, (UserError, DivergedError)):
        return str(error)
    if isinstance(error, MissingConfigException) and error.options is not None:
        return _unknown_option(error.missing_cfg_file or "", error.options)
    if isinstance(error, OverrideParseException):
        return f"'{error.override}' is not of the form key=value.\n{error}"
    if isinstance(error, YAMLError):
        return f"A config file is not valid YAML: {error}"
    cause = error.__cause__ if isinstance(error, HydraException) else error
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and cause.full_key:
        return _unknown_key(cause.full_key, cause.object_type)
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return f"{cause.full_key}: {_first_line(cause)}."
    if isinstance(error, (HydraException, OmegaConfBaseException)) or _raised_by_hydra(error):
        return str(error)
    if isinstance(error, RuntimeError) and 'detect "srun"' in str(error):  # submitit's, when it has no scheduler
        return (
            "hydra/launcher=submitit_slurm needs SLURM, and this machine has no srun. Start it on a login node, or "
            "take hydra/launcher=submitit_local or joblib."
        )
    return None


def _unknown_option(missing: str, options: Iterable[str]) -> str:
    group, _, option = missing.rpartition("/")
    allowed = [name for name in options if not name.startswith("_")]
    extra = LAUNCHERS.get(option) if group == "hydra/launcher" else None
    hint = f" pip install 'ftexp[{extra}]' brings it." if extra else nearest(option, allowed)
    return f"There is no {group}={option}.{hint} Options: {', '.join(allowed)}."


def _unknown_key(full_key: str, owner: type | None) -> str:
    prefix, _, key = full_key.rpartition(".")
    allowed = [f.name for f in fields(owner)] if is_dataclass(owner) else []
    hint = nearest(key, allowed)
    others = [
        name.lstrip("_")
        for name, node in SCHEMA.get(prefix, {}).items()
        if node is not owner and key in [f.name for f in fields(node)]
    ]
    if others:
        hint = f" It belongs to {' or '.join(f'{prefix}={name}' for name in others)}."
    where = f"{prefix}." if prefix else ""
    listing = f" Allowed here: {', '.join(where + name for name in allowed)}." if allowed else ""
    return f"There is no setting {full_key}.{hint}{listing}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _raised_by_hydra(error: BaseException) -> bool:
    """Whether the error comes out of the composition itself and not out of a run."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.startswith(("hydra.", "omegaconf."))
