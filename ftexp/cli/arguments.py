"""Quotes the arguments of a command where Hydra's grammar needs quotes.

A value that the grammar cannot parse, such as ``~/x``, ``dirs/a=b`` or ``ä``, can only be meant as text, so it is put
in quotes. So is a value that the grammar would parse as a number, a list or a choice although the setting takes text.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException

from ftexp.config import Config
from ftexp.config.check import refuse_empty
from ftexp.config.known_keys import HYDRA_PATHS, PATHS, hint, known_keys, string_keys, unknown_setting
from ftexp.config.moved import moved_to
from ftexp.errors import ConfigError
from ftexp.hydra_internals import hydra_argument_parser

MULTIRUN = ("-m", "--multirun")
INFO = ("-i", "--info")
# Keys that ftexp.cli.resume_arguments replaces before Hydra sees them.
RESUME = ("resume", "resume.run")
# "experiment" has options and no keys.
GROUPS = (*(field.name for field in fields(Config)), "experiment")
_FORM = "Choose an option with group=option, set a key with group.key=value"
# A value that holds one of these is more likely a mistyped list, mapping, function or quotation than plain text.
_STRUCTURE = set("'\"[](){}")
# A value in a mapping that has no quotes and no structure of its own.
_VALUE_OF_MAPPING = re.compile(r""":\s*([^\s:,'"\[\](){}][^:,'"\[\](){}]*?)\s*(?=[,}])""")


def readable(arguments: Sequence[str]) -> list[str]:
    """Quote every value that needs it, and expand ``~`` in settings that take a path.

    Args:
        arguments: without the program's name; the flags of Hydra are left as they are, but for ``--info``, whose value
            is written out.

    Raises:
        ConfigError: for a flag that does not exist, and for an argument that is not of the form key=value.
    """
    for argument in arguments:
        if argument != argument.encode(errors="replace").decode():
            raise ConfigError(
                f"{argument!a} has bytes that are not valid UTF-8. Rename the file or folder, or make a link to it."
            )
    arguments = _with_value_of_info(arguments)
    known, unknown = hydra_argument_parser().parse_known_intermixed_args(list(arguments))
    if flags := [argument for argument in unknown if argument.startswith("-")]:
        raise ConfigError(_no_such_flag(flags[0], arguments))
    multirun = bool(set(MULTIRUN) & set(arguments))
    left = Counter(known.overrides)
    result: list[str] = []
    for number, argument in enumerate(arguments):
        if left[argument]:
            left[argument] -= 1
            _check_form(arguments, number)
            argument = read_value(argument, multirun=multirun)
        result.append(argument)
    return result


def _with_value_of_info(arguments: Sequence[str]) -> list[str]:
    """Write ``--info`` without a value as ``--info=all``: Hydra would take the override that follows for its value."""
    pairs = zip(arguments, [*arguments[1:], "-"], strict=False)
    return ["--info=all" if one in INFO and (after.startswith("-") or "=" in after) else one for one, after in pairs]


def read_value(argument: str, *, multirun: bool = False) -> str:
    """Write one ``key=value`` so that Hydra's grammar parses it as it is meant.

    Args:
        argument: one argument of the command.
        multirun: whether a comma separates values that are tried in turn.

    Raises:
        ConfigError: when it can be parsed neither as it is nor in quotes, and for a setting that was renamed.
    """
    key, sign, value = argument.partition("=")
    key, name = key.strip(), key.strip().lstrip("+")
    if not sign or argument.startswith("~"):
        return argument
    if moved := moved_to(name, value):
        raise ConfigError(moved)
    if name in HYDRA_PATHS and value.strip() in ("", "''", '""'):
        refuse_empty(name, "")
    if name in (*PATHS, *HYDRA_PATHS, *RESUME):
        value = os.path.expanduser(value)  # unlike Path.expanduser, it leaves the name of an unknown user as it is
    argument = f"{key}={value}"
    if name in RESUME:
        return argument
    parsed = _parse(argument)
    if isinstance(parsed, Override):
        is_text = name not in string_keys() or _is_text(parsed, multirun=multirun)
        if not is_text:
            return f"{key}={_quoted(value, multirun=multirun)}"
        _check_sweep(parsed, argument, multirun=multirun)
        return argument
    return _with_quotes(key, value, parsed, multirun=multirun)


def _with_quotes(key: str, value: str, why: str, *, multirun: bool) -> str:
    """A setting with quotes, for the reason that Hydra gives for not parsing it; errors as of ``read_value``."""
    argument, name = f"{key}={value}", key.lstrip("+")
    if isinstance(_parse(f"{key}=x"), str):
        raise ConfigError(f"'{argument}' has no valid key: '{key}'. Write group.key=value.")
    if multirun and "," in value and not _has_structure(value) and not all(map(str.strip, value.split(","))):
        raise ConfigError(f"'{argument}' has a comma with no value beside it. Write {key}=VALUE,VALUE without spaces.")
    if name in string_keys() or not _has_structure(value):
        return f"{key}={_quoted(value, multirun=multirun)}"
    if value.strip().startswith("{"):
        quoted = f"{key}={_VALUE_OF_MAPPING.sub(_in_quotes, value)}"
        if isinstance(_parse(quoted), Override):
            return quoted
        if not value.isascii():
            raise ConfigError(_key_for_a_file(key, value))
    cure = shlex.quote(f"{key}={QuotedString(value, Quote.double).with_quotes()}")
    raise ConfigError(
        f"'{argument}' cannot be parsed: {why}. A list is [a,b], a mapping {{key:value}}. Text that has brackets, "
        f"commas or quotes needs quotes of its own, inside those of the shell: {cure}."
    )


def _parse(argument: str) -> Override | str:
    """What Hydra parses; the reason as text if it cannot."""
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException as error:
        lines = [line for line in str(error).splitlines() if line and not line.startswith(("See ", "Available"))]
        return (lines or [type(error).__name__])[-1].rstrip(".")


def _is_text(parsed: Override, *, multirun: bool) -> bool:
    """Whether Hydra parses the value of a text setting as text, as null, or as several texts to try."""
    if parsed.is_sweep_override():
        if parsed.value_type is not ValueType.SIMPLE_CHOICE_SWEEP:
            return True
        values: list[object] = list(parsed.sweep_iterator())
        return multirun and all(value is None or isinstance(value, (str, QuotedString)) for value in values)
    return parsed.value() is None or isinstance(parsed.value(), str)


def _check_sweep(parsed: Override, argument: str, *, multirun: bool) -> None:
    """Refuse several values for one run, and several for a key that does not exist, before the first trial fails.

    Raises:
        ConfigError: with what was probably meant.
    """
    name = argument.partition("=")[0].lstrip("+")
    if parsed.value_type is ValueType.SIMPLE_CHOICE_SWEEP and not multirun:
        as_list = "" if name in GROUPS else f"; a list is written {argument.replace('=', '=[', 1)}]"
        raise ConfigError(f"{argument} gives several values. To try each of them add -m{as_list}.")
    group = name.partition(".")[0]
    if not parsed.is_sweep_override() or "/" in name or group == "hydra":
        return
    if group not in GROUPS:
        raise ConfigError(unknown_setting(name, list(GROUPS)))
    beside = [key for key in known_keys() if key.startswith(f"{group}.")]
    if name != group and not any(f"{name}.".startswith(f"{key}.") for key in beside):
        raise ConfigError(unknown_setting(name, [key.partition(".")[2] for key in beside]))


def _quoted(value: str, *, multirun: bool) -> str:
    parts = value.split(",") if multirun and not _has_structure(value) else [value]
    return ",".join(QuotedString(part, Quote.single).with_quotes() for part in parts)


def _in_quotes(found: re.Match[str]) -> str:
    return f":{QuotedString(found[1], Quote.single).with_quotes()}"


def _key_for_a_file(key: str, value: str) -> str:
    """The message for a mapping with a key that Hydra's grammar cannot parse in any form."""
    group, _, name = key.partition(".")
    return (
        f"'{key}={value}' cannot be parsed: in a command, the keys of a mapping may have only ASCII letters. Write it "
        f"into a file, own/{group}/mine.yaml, with the lines 'defaults: [OPTION, _self_]' (an option of {group}) and "
        f"'{name}: {value}', and give --config-dir=own {group}=mine."
    )


def _has_structure(value: str) -> bool:
    return bool(set(value) & _STRUCTURE)


def _check_form(arguments: Sequence[str], number: int) -> None:
    """Refuse an argument that is not of the form key=value.

    Raises:
        ConfigError: with what was probably meant.
    """
    argument = arguments[number]
    before = arguments[number - 1] if number else ""
    after = arguments[number + 1] if number + 1 < len(arguments) else ""
    key = argument.partition("=")[0]
    if argument.startswith("=") or not argument.strip("+="):
        advice = (
            f"Write it without spaces: {before}{argument}" if before and "=" not in before else "Its key is missing"
        )
    elif argument.startswith("~") and key[1:] in (*GROUPS[:-1], *known_keys()):
        raise ConfigError(
            f"'{argument}' would remove {key[1:]}, which a run needs. Omit it to use the value in conf/, or give "
            f"another one: {key[1:]}=VALUE."
        )
    elif "=" in argument or argument.startswith("~"):
        return
    elif after.startswith("="):
        value = after if len(after) > 1 else after + "".join(arguments[number + 2 : number + 3])
        advice = f"Write it without spaces: {argument}{value}"
    elif before.endswith("="):
        advice = f"Write it without spaces: {before}{argument}"
    elif key in known_keys():
        advice = f"Write {argument}={after if after and '=' not in after else 'VALUE'}"
    elif "=" in before:
        advice = f"If it belongs to the previous argument, put both in quotes: {shlex.quote(f'{before} {argument}')}"
    else:
        advice = _FORM
    raise ConfigError(f"'{argument}' is not of the form key=value. {advice}.{hint(key, []) if advice == _FORM else ''}")


def _no_such_flag(flag: str, arguments: Sequence[str]) -> str:
    name, sign, value = flag.lstrip("-").partition("=")
    position = list(arguments).index(flag) if flag in arguments else -1
    following = arguments[position + 1] if 0 <= position < len(arguments) - 1 else ""
    value = value if sign else following if following and "=" not in following and following[0] != "-" else "VALUE"
    if name in known_keys() or name in RESUME:
        return f"There is no flag --{name}. Settings are given as key=value: {name}={value}."
    if moved := moved_to(name, value):
        return f"There is no flag --{name}. Settings are given as key=value, and {moved}"
    meant = hint(name, []) or " --cfg job shows all settings."
    return f"There is no flag {flag.partition('=')[0]}; settings are given as key=value.{meant}"
