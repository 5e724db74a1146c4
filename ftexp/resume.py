"""``resume=FOLDER`` and ``resume=auto``: the command of an interrupted run, again, in its own folder.

All of this comes before Hydra composes anything, because the folder is a part of what it composes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from ftexp.config.uri import hide_credentials
from ftexp.errors import ConfigError

RUN_FOLDER = "hydra.run.dir"
# Of a run that can be gone on with; written when it begins.
IDENTITY = "run.json"
LOCK = ".lock"


def expand(arguments: Sequence[str]) -> list[str]:
    """The command line with ``resume=`` replaced by what it stands for.

    Args:
        arguments: without the program's name.

    Returns:
        The overrides of the run that is gone on with, then those given now, which win; with ``resume=auto`` and no such
        run, the arguments without it.

    Raises:
        ConfigError: when there is nothing to go on with in the folder.
    """
    asked = [argument.partition("=")[2] for argument in arguments if _key(argument) in ("resume", "resume.run")]
    rest = [argument for argument in arguments if _key(argument) not in ("resume", "resume.run")]
    if not asked or asked[-1] == "null":
        return rest
    if {"-m", "--multirun"} & set(rest):
        raise ConfigError("resume= goes on with one run. A sweep goes on when its own command is given again.")
    folder = _newest_unfinished(rest) if asked[-1] == "auto" else _checked(Path(asked[-1]))
    if folder is None:
        print("ftexp: resume=auto: no unfinished run of this command, so a new one begins.", file=sys.stderr)
        return rest
    flags, given = [a for a in rest if a.startswith("-")], [a for a in rest if not a.startswith("-")]
    saved = [override for override in saved_overrides(folder) if _key(override) not in {_key(a) for a in given}]
    for override in saved:
        if override != hide_credentials(override) or "***" in override:
            raise ConfigError(
                f"The run in {folder} was given {_key(override)} with a password, which is not kept in its folder. "
                f"Give {_key(override)}=... again."
            )
    place = [f"{RUN_FOLDER}={_quoted(folder)}", f"resume.run={_quoted(folder)}"]
    # Hydra would write .hydra/ anew, before the run is known to be the same.
    return [*flags, *saved, *given, *place, "hydra.output_subdir=null"]


def saved_overrides(folder: Path) -> list[str]:
    """What the run was started with, without what says where it was to be."""
    overrides = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")) or []
    return [str(o) for o in overrides if not _key(str(o)).startswith(("resume", RUN_FOLDER))]


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        raise ConfigError(f"resume={folder}: there is no such folder. Give that of a run, or resume=auto.")
    if not (folder / IDENTITY).exists():
        raise ConfigError(f"resume={folder}: there is no {IDENTITY} in it, so no run had begun to train there.")
    if _status(folder) == "finished":
        raise ConfigError(f"resume={folder}: this run has finished; its result is in {folder / 'result.json'}.")
    return folder


def _newest_unfinished(arguments: Iterable[str]) -> Path | None:
    """The newest run of the same overrides that was interrupted or killed; one that failed would fail again."""
    given = [hide_credentials(argument) for argument in arguments if not argument.startswith("-")]
    wanted = sorted(argument for argument in given if _key(argument) not in (RUN_FOLDER, "resume.force"))
    named = [argument.partition("=")[2] for argument in given if _key(argument) == RUN_FOLDER]
    folders = [Path(named[-1])] if named else sorted(Path("outputs").glob("*/*"), reverse=True)
    for folder in folders:
        if not (folder / IDENTITY).exists() or _status(folder) not in (None, "interrupted"):
            continue
        if sorted(hide_credentials(override) for override in saved_overrides(folder)) == wanted and _is_free(folder):
            return folder
    return None


def _status(folder: Path) -> str | None:
    """Of a run that has ended; None: it was killed, or is still going on."""
    file = folder / "result.json"
    return str(json.loads(file.read_text(encoding="utf-8"))["status"]) if file.exists() else None


def _is_free(folder: Path) -> bool:
    try:
        with FileLock(folder / LOCK, timeout=0):
            return True
    except Timeout:
        return False


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _quoted(folder: Path) -> str:
    """For Hydra's grammar, in which a comma or an equals sign would mean something."""
    text = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
