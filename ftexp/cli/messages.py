"""One message for each mistake that Hydra, OmegaConf or ftexp finds in a command or a config file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import BooleanNode, FloatNode, IntegerNode
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError
from yaml import YAMLError

from ftexp.config import SCHEMA, Config
from ftexp.config.known_keys import explained, unknown_setting
from ftexp.config.moved import moved_to
from ftexp.errors import DivergedError, UserError, nearest, out_of_memory

# hydra/launcher=NAME -> the extra of ftexp that installs it.
LAUNCHERS = {"joblib": "launchers", "submitit_local": "launchers", "submitit_slurm": "launchers", "ray": "ray"}

# What a setting of a type may be.
ALLOWED = {BooleanNode: "true or false", IntegerNode: "a whole number", FloatNode: "a number"}

# Groups that have keys and no options.
SINGLE_GROUPS = {group.name for group in fields(Config)} - SCHEMA.keys()


def explain(error: BaseException) -> str | None:
    """The message for a mistake of the user; None for any other error, which is shown with its traceback."""
    if isinstance(error, (UserError, DivergedError)):
        return str(error)
    if isinstance(error, MissingConfigException) and error.options is not None:
        return _unknown_option(error.missing_cfg_file or "", error.options)
    if isinstance(error, OverrideParseException):
        return f"'{error.override}' is not of the form key=value: {_first_line(error)}."
    if isinstance(error, YAMLError):
        return f"A config file is not valid YAML: {error}"
    cause = error.__cause__ if isinstance(error, HydraException) else error
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and cause.full_key:
        return _unknown_key(cause.full_key, cause.object_type)
    if isinstance(cause, ValidationError) and cause.full_key in SINGLE_GROUPS:
        return f"{cause.full_key} is a group without options. Set one of its keys: {cause.full_key}.KEY=VALUE."
    if isinstance(cause, ValidationError) and cause.full_key and str(cause).startswith("field '"):
        return f"{cause.full_key} may not be null. Give a value, or omit it to use the one in conf/."
    if isinstance(cause, ValidationError) and cause.full_key and type(cause.child_node) in ALLOWED:
        return _wrong_type(cause)
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return f"{cause.full_key}: {_first_line(cause)}."
    if isinstance(error, (HydraException, OmegaConfBaseException)) or _raised_by_hydra(error):
        return _moved_in_a_file(str(error)) or str(error)
    if isinstance(error, RuntimeError) and 'detect "srun"' in str(error):  # submitit's, when it has no scheduler
        return (
            "hydra/launcher=submitit_slurm needs SLURM, and this machine has no srun. Start it on a login node, or "
            "use hydra/launcher=submitit_local or joblib."
        )
    if (memory := out_of_memory(error)) is not None:
        return (
            f"Out of memory ({_first_line(memory)[:200]}). Use smaller batches (train.batch_size; --batch-size of "
            "predict and evaluate), smaller images (data.image_size) or a smaller model, or end other programs on the "
            "device."
        )
    return None


def _unknown_option(missing: str, options: Iterable[str]) -> str:
    group, _, option = missing.partition("/") if missing.partition("/")[0] in SCHEMA else missing.rpartition("/")
    allowed = [name for name in options if not name.startswith("_")]
    extra = LAUNCHERS.get(option) if group == "hydra/launcher" else None
    hint = (
        f" Install it with pip install 'ftexp[{extra}]'."
        if extra
        else ""
        if "/" in option
        else nearest(option, allowed)
    )
    return (
        f"There is no {group}={option}.{hint}{_instead(group, option)} Options: {', '.join(allowed)}.{explained(group)}"
    )


def _instead(group: str, option: str) -> str:
    """What to write instead when a group was given the name of a folder, a file or a network in timm."""
    text = f"{group}={shlex.quote(option)}"
    if group == "data":
        return f" For a folder of images write {text.replace('=', '=imagefolder data.root=', 1)}."
    if group == "model" and Path(option).suffix in (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".tar"):
        return f" For a file of weights add {text.replace('=', '.weights=', 1)} to model=NAME."
    return f" For a network in timm write {text.replace('=', '=timm model.name=', 1)}." if group == "model" else ""


def _unknown_key(full_key: str, owner: type | None) -> str:
    prefix, _, key = full_key.rpartition(".")
    allowed = [f.name for f in fields(owner)] if is_dataclass(owner) else []
    others = [
        name.lstrip("_")
        for name, node in SCHEMA.get(prefix, {}).items()
        if node is not owner and key in [f.name for f in fields(node)]
    ]
    belongs = f" It belongs to {' or '.join(f'{prefix}={name}' for name in others)}." if others else ""
    return unknown_setting(full_key, allowed, belongs)


def _wrong_type(error: ValidationError) -> str:
    key = str(error.full_key).rpartition(".")[2]
    of_group = fields(error.object_type) if is_dataclass(error.object_type) else []
    or_null = any(field.name == key and "None" in str(field.type) for field in of_group)
    allowed = ALLOWED[type(error.child_node)] + (", or null" if or_null else "")
    return f"{error.full_key}={error.value} is not allowed: it must be {allowed}."


def _moved_in_a_file(text: str) -> str | None:
    """The message for a renamed setting in a config file; None when Hydra's error is about something else."""
    found = re.match(r"(?P<file>In '.+': ).*?^ *full_key: (?P<key>\S+)$", text, flags=re.MULTILINE | re.DOTALL)
    moved = moved_to(found["key"]) if found else None
    return f"{found['file']}{moved}" if found and moved else None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _raised_by_hydra(error: BaseException) -> bool:
    """Whether the error was raised while Hydra composed the configuration, and not by a run."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.startswith(("hydra.", "omegaconf."))
