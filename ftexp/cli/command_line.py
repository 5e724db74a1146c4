"""What all commands share: the Hydra entry point, the checks before it, and errors as single messages."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ftexp.cli.arguments import GROUPS, MULTIRUN, readable
from ftexp.cli.help_options import help_of_a_run, register_options
from ftexp.cli.messages import explain
from ftexp.cli.redaction import redact_saved
from ftexp.cli.resume_arguments import expand
from ftexp.cli.streams import keep_streams
from ftexp.config import Config, parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.config.known_keys import refuse_unknown
from ftexp.config.uri import hide_credentials
from ftexp.errors import ConfigError, DivergedError, InterruptedRunError, StoppedEarly, UserError
from ftexp.files.disk import RUN_FOLDER, SWEEP_FOLDER, WrittenPaths, explain_disk, written_paths
from ftexp.machine.torchrun import is_first_to_report, is_main, same_arguments, several_processes
from ftexp.machine.versions import version_line

T = TypeVar("T")

log = logging.getLogger(__name__)

# The only things that a configuration can make Hydra call, besides its own plugins and Python's log handlers.
CALLABLE = ["ftexp.cli.redaction.RedactingFormatter", "ftexp.run_folder.ClaimFolder", "ftexp.cli.run_log.RunLog"]

# The variable that keeps the user's HYDRA_FULL_ERROR while ftexp sets its own.
TRACEBACK = "FTEXP_TRACEBACK"

# The key of an argument that sets one, or chooses an option: not one of Hydra's own, and none that is added or removed.
_KEY = re.compile(r"(?!hydra\.)\w+(\.\w+)*(?==)")


def run_command(
    task: Callable[[DictConfig], object],
    *,
    under_torchrun: bool = False,
    own_help: str | None = None,
    register: Callable[[], object] = lambda: None,
) -> None:
    """Compose the configuration and do the task with it; a mistake of the user ends in one message and exit code 1.

    Args:
        task: is called with the composed configuration.
        under_torchrun: whether several processes can do the task together.
        own_help: the text that ``--help`` prints; None: the help of a run, from conf/hydra/help, and with other
            arguments beside ``--help``, Hydra's way to print it.
        register: registers with Hydra what the task needs beside the schema; help and mistakes in arguments come first.
    """
    keep_streams()
    if own_help is not None and {"--help", "-h"} & set(sys.argv[1:]):
        print(own_help)
        return
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(help_of_a_run(conf_dir()))
        return
    if "--version" in sys.argv[1:]:
        print(version_line())
        return
    try:
        sys.argv[1:] = _arguments(under_torchrun)
        _refuse_unknown_keys(sys.argv[1:])
    except UserError as error:
        _stop(str(error), code=1)
    register_schema()
    register()
    register_options(conf_dir())
    wants_traceback = _wants_traceback()
    try:
        with _errors_reach_us():
            hydra.main(config_path=str(conf_dir()), config_name="config", execution_whitelist=CALLABLE)(task)()
    except InterruptedRunError as stopped:
        _stop("interrupted.", code=128 + stopped.signal)
    except KeyboardInterrupt:
        _stop("interrupted.", code=130)
    except (Exception, StoppedEarly) as stopped:
        reason = (stopped.__cause__ or stopped) if isinstance(stopped, StoppedEarly) else stopped
        message = None if wants_traceback else explain_disk(reason, _requested_folder()) or explain(reason)
        if message is None:
            traceback.print_exc()
            sys.exit(1)
        _stop(message, code=1)


def guarded(composed: DictConfig, task: Callable[[Config, Path], T]) -> T:
    """Do a task with the checked configuration and the job's folder; a mistake of the user ends in one message."""
    keep_streams()  # again, for a job in a process that a launcher started
    redact_saved(HydraConfig.get())
    folder = Path(HydraConfig.get().runtime.output_dir)
    paths: WrittenPaths = {RUN_FOLDER: folder}
    try:
        with _where_it_was_started():
            config = parse(composed)
            paths = written_paths(config, folder, in_sweep=in_sweep())
            return task(config, folder)
    except InterruptedRunError as stopped:
        if in_sweep():
            log.warning("Everything is saved. To resume the sweep, give the same command again.")
        elif stopped.saved and (folder / "checkpoints" / "last.pt").exists():
            log.warning("Everything is saved. Resume with: python -m ftexp %s", shlex.quote(f"resume={folder}"))
        raise
    except (UserError, DivergedError) as error:
        if in_sweep() or _wants_traceback():
            raise
        _stop(str(error), code=1)  # raises SystemExit, which Hydra passes on without a report of its own
    except Exception as error:
        if in_sweep():
            raise
        if not _wants_traceback() and (message := explain_disk(error, paths)) is not None:
            _stop(message, code=1)
        if is_first_to_report():
            print(hide_credentials(traceback.format_exc()), file=sys.stderr)  # Hydra would print the overrides as well
        sys.exit(1)


def in_sweep() -> bool:
    """Whether this job is one of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


@contextmanager
def _where_it_was_started() -> Iterator[None]:
    """Resolve relative paths against the folder of the command; hydra.job.chdir changes to the job's folder."""
    settings, here = HydraConfig.get(), Path.cwd()
    if settings.job.chdir:
        os.chdir(settings.runtime.cwd)
    try:
        yield
    finally:
        os.chdir(here)


def _arguments(under_torchrun: bool) -> list[str]:
    """The command line for Hydra, which is the same in all processes of a run."""
    given = readable(sys.argv[1:])
    if set(MULTIRUN) & set(given) and not under_torchrun:
        raise ConfigError("-m starts a sweep of python -m ftexp. This command has no sweeps: leave -m out.")
    if not several_processes():
        return expand(given, resumable=under_torchrun)
    if set(MULTIRUN) & set(given):
        raise ConfigError(
            "torchrun trains one run with several processes, and --multirun starts many runs. Start the sweep without "
            "torchrun: hydra/launcher=joblib gives every GPU its own trials, and the same command with the same "
            "hydra.sweeper.storage on several machines shares one study."
        )
    if not under_torchrun:
        raise ConfigError("torchrun is for python -m ftexp. This command needs one process: start it without torchrun.")
    return same_arguments(expand(given) if is_main() else [])


def _refuse_unknown_keys(arguments: Sequence[str]) -> None:
    """Refuse a setting that no configuration has before Hydra composes one, which takes longer than all before it.

    Hydra refuses the others, and those of a command with flags or folders that may bring options of the user's own.
    """
    if any((a.startswith("-") and a not in MULTIRUN) or "hydra.searchpath=" in a for a in arguments):
        return
    for argument in arguments:
        if (found := _KEY.match(argument)) and found[0] not in GROUPS:
            refuse_unknown(found[0])


def _requested_folder() -> WrittenPaths:
    """The job's folder as the arguments name it; for errors before the configuration is composed."""
    setting = SWEEP_FOLDER if set(MULTIRUN) & set(sys.argv) else RUN_FOLDER
    named = [argument.partition("=")[2] for argument in sys.argv if argument.startswith(f"{setting}=")]
    return {setting: Path(named[-1].strip("'\"") if named else "").absolute()}


def _wants_traceback() -> bool:
    return os.environ.get(TRACEBACK, os.environ.get("HYDRA_FULL_ERROR")) == "1"


@contextmanager
def _errors_reach_us() -> Iterator[None]:
    """Keep Hydra from reporting errors itself; the user's own choice stays visible to worker processes."""
    before = dict(os.environ)
    os.environ.update({TRACEBACK: str(int(_wants_traceback())), "HYDRA_FULL_ERROR": "1"})
    try:
        yield
    finally:
        for name in (TRACEBACK, "HYDRA_FULL_ERROR"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _stop(message: str, code: int) -> NoReturn:
    if is_first_to_report():
        print(f"ftexp: {hide_credentials(message)}", file=sys.stderr)
    sys.exit(code)
