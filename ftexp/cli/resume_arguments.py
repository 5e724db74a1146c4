"""``resume=FOLDER`` and ``resume=auto``: repeat the command of an interrupted run in its own folder.

``resume=FOLDER`` is replaced before Hydra composes the configuration, because the folder is a part of it.
``resume=auto`` is resolved afterwards, because only the composed configuration says where the runs of a command are.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from hydra.core.override_parser.types import Quote, QuotedString

from ftexp.config.moved import renamed_overrides
from ftexp.config.uri import hide_credentials
from ftexp.errors import CheckpointError, ConfigError
from ftexp.files.json_files import read_json
from ftexp.files.run_files import BEST, IDENTITY, LOCK, RESULT, status_of
from ftexp.hydra_internals import hydra_argument_parser

AUTO = "auto"
RUN_FOLDER = "hydra.run.dir"
RESUME = ("resume", "resume.run")


def expand(arguments: Sequence[str], *, resumable: bool = True) -> list[str]:
    """Replace ``resume=`` in a command line by the overrides of the run to resume.

    Args:
        arguments: without the program's name.
        resumable: whether the command has runs that can be resumed.

    Returns:
        The flags of this command with their values, the overrides of the run to resume, then those of this command,
        which take precedence; for ``resume=auto`` the setting that Hydra composes.

    Raises:
        ConfigError: when the folder holds no run that can be resumed.
    """
    asked = [argument.partition("=")[2] for argument in arguments if _key(argument) in RESUME]
    rest = [argument for argument in arguments if _key(argument) not in RESUME]
    if not asked or asked[-1] == "null":
        return rest
    if not resumable:
        raise ConfigError("resume= resumes a run of python -m ftexp. This command has no runs: leave resume= out.")
    if {"-m", "--multirun"} & set(rest):
        raise ConfigError("resume= resumes one run. To resume a sweep, give its own command again.")
    if asked[-1] == AUTO:
        return [*rest, f"resume.run={AUTO}"]
    if not _unquoted(asked[-1]).strip():
        raise ConfigError("resume= is empty. Give the folder of a run, resume=auto, or leave it out.")
    folder = _checked(Path(_unquoted(asked[-1])))
    flags, given = _flags_and_overrides(rest)
    saved = [override for override in _known_overrides(folder) if _key(override) not in {_key(a) for a in given}]
    if key := key_with_password(saved):
        raise ConfigError(
            f"The run in {folder} was given {key} with a password, which is not saved in its folder. "
            f"Give {key}=... again."
        )
    in_folder = [f"{RUN_FOLDER}={_quoted(folder)}", f"resume.run={_quoted(folder)}"]
    # Without the last one, Hydra would replace .hydra/ before ftexp has checked that the run is the same.
    return [*flags, *saved, *given, *in_folder, "hydra.output_subdir=null"]


def _flags_and_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags of Hydra with their values, such as ``--config-dir FOLDER``, and the overrides."""
    left = Counter(hydra_argument_parser().parse_known_intermixed_args(list(arguments))[0].overrides)
    flags, overrides = list[str](), list[str]()
    for argument in arguments:
        is_override = left[argument] > 0
        left[argument] -= is_override
        (overrides if is_override else flags).append(argument)
    return flags, overrides


def key_with_password(saved: Iterable[str]) -> str | None:
    """The key of the first saved override whose value had a password, which is not saved; None if there is none."""
    lacking = (override for override in saved if override != hide_credentials(override) or "***" in override)
    return next(map(_key, lacking), None)


def newest_unfinished(folders: Sequence[Path], overrides: Iterable[str]) -> Path | None:
    """Find the newest run that was interrupted or killed. Failed runs are skipped, since they would fail again.

    Args:
        folders: the folders to search, the newest last.
        overrides: the overrides of the run to find, in any order.
    """
    wanted = sorted(own_overrides(overrides))
    for folder in reversed(folders):
        if not (folder / IDENTITY).exists():
            continue
        try:
            interrupted = status_of(folder) in (None, "interrupted")
            saved = saved_overrides(folder)
            same = interrupted and saved is not None and sorted(saved) == wanted
        except CheckpointError as error:
            given = _overrides_of_hydra(folder)
            if given is None or sorted(given) == wanted:  # of this command, as far as can be told
                raise
            print(f"ftexp: resume=auto skips {folder}, a run of another command: {error}", file=sys.stderr)
            continue
        if same and _is_free(folder):
            return folder
    return None


def own_overrides(overrides: Iterable[str]) -> list[str]:
    """The overrides that identify a run: without its folder, without ``resume``, and without passwords."""
    elsewhere = ("resume", "hydra.", "hydra/")
    return [hide_credentials(str(o)) for o in overrides if not _key(str(o)).startswith(elsewhere)]


def saved_overrides(folder: Path) -> list[str] | None:
    """Read the overrides that the run was started with, by the current names of the settings.

    Returns:
        The overrides; None if they are not saved: of a run whose configuration was made in Python, and in a folder of
        ftexp 0.1.0 that was copied without ``.hydra``.
    """
    kept = read_json(folder / IDENTITY).get("overrides") if (folder / IDENTITY).exists() else None
    if kept is None:
        return _overrides_of_hydra(folder)  # of runs of ftexp 0.1.0
    if not isinstance(kept, list):
        raise CheckpointError(f"{folder / IDENTITY} is damaged: its overrides are not a list. Restore the file.")
    return renamed_overrides(own_overrides(kept))


def _overrides_of_hydra(folder: Path) -> list[str] | None:
    """The overrides that Hydra wrote to the folder of a run; None if the folder lacks ``.hydra``."""
    file = folder / ".hydra" / "overrides.yaml"
    if not file.exists():
        return None
    return renamed_overrides(own_overrides(yaml.safe_load(file.read_text(encoding="utf-8")) or []))


def _known_overrides(folder: Path) -> list[str]:
    saved = saved_overrides(folder)
    if saved is None:
        print(
            f"ftexp: {folder} does not say with which overrides the run was started. Only those of this command are "
            "used.",
            file=sys.stderr,
        )
    return saved or []


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        raise ConfigError(f"resume={folder}: there is no such folder. Give the folder of a run, or resume=auto.")
    if not (folder / IDENTITY).exists():
        raise ConfigError(
            f"resume={folder}: the folder has no {IDENTITY}, so no run began to train there. Give the folder of a run, "
            "or resume=auto."
        )
    if status_of(folder) == "finished":
        raise ConfigError(
            f"resume={folder}: this run has finished; its result is in {folder / RESULT}. To train for more epochs, "
            f"start a new run with its weights: {_from_weights(folder)}"
        )
    return folder


def _from_weights(folder: Path) -> str:
    """How a new run starts with the best weights of a finished one: its command, as far as it is known."""
    replaced, saved = ("model.weights", "stage.epochs"), saved_overrides(folder)
    weights = [f"model.weights={folder / BEST}", "stage.epochs=NUMBER"]
    if saved is None:
        return f"{shlex.join(weights)}, beside the settings of that run"
    same = [override for override in saved if _key(override) not in replaced]
    return shlex.join(["python", "-m", "ftexp", *same, *weights])


def _is_free(folder: Path) -> bool:
    try:
        with FileLock(folder / LOCK, timeout=0):
            return True
    except Timeout:
        return False


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _quoted(folder: Path) -> str:
    """Quote a folder for Hydra's grammar, in which a comma or an equals sign has a meaning."""
    return QuotedString(str(folder), Quote.single).with_quotes()


def _unquoted(folder: str) -> str:
    quoted = len(folder) > 1 and folder[0] == folder[-1] and folder[0] in "'\""
    return folder[1:-1] if quoted and not Path(folder).exists() else folder
