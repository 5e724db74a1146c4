"""Claims the folder of a run before Hydra or ftexp writes to it, so that no two runs share a folder."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from glob import escape, glob
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from ftexp.cli.resume_arguments import AUTO, newest_unfinished, own_overrides
from ftexp.errors import CheckpointError, ConfigError, StoppedEarly
from ftexp.files.run_files import BEST, HISTORY, IDENTITY, LOCK, RESULT, status_of
from ftexp.machine.torchrun import is_main, several_processes, store

# Any of these says that a run has begun to train in a folder.
OF_A_RUN = (IDENTITY, RESULT, BEST, "checkpoints/last.pt")
# What is removed when a job of a sweep starts again; it overwrites all other files.
LEFTOVERS = (IDENTITY, RESULT, HISTORY)
NOTHING_FOUND = "ftexp: resume=auto: no unfinished run of this command, so a new one begins."
# The time in hydra.run.dir, from Hydra's own resolver; the runs of one command differ only in it.
_NOW = re.compile(r"\$\{now:[^}]*\}")
_ANY_TIME = "ANY-TIME"
_NUMBERED = "${hydra.job.num}"


class ClaimFolder(Callback):
    """A callback of Hydra that claims the folder of a run, and finds the run to resume for ``resume=auto``."""

    def __init__(self) -> None:
        self._claim = ExitStack()

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Claim the folder, before Hydra creates it."""
        with _through_hydra():
            auto = config.resume.run == AUTO
            if auto:
                _find_run(config)
            if is_main():
                self._claim.enter_context(claimed(_resolved(config), new=config.resume.run is None))
                if auto and config.resume.run is None:
                    print(NOTHING_FOUND, file=sys.stderr)

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        """Release the folder, however the run ended."""
        self._claim.close()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse the folder of another sweep, before the first job. A search checks its folder itself."""
        with _through_hydra():
            if config.resume.run is not None:
                raise ConfigError("resume= resumes one run. To resume a sweep, give its own command again.")
            sweep = OmegaConf.to_container(config.hydra.sweep, resolve=False)
            assert isinstance(sweep, dict)
            if "pruner" not in config.hydra.sweeper and sweep["subdir"] == _NUMBERED:
                refuse_trials(Path(config.hydra.sweep.dir))


@contextmanager
def claimed(folder: Path, *, new: bool) -> Iterator[None]:
    """Lock the folder of a run for as long as the ``with`` block runs.

    Args:
        folder: is created if it does not exist.
        new: whether a new run begins there, so that the folder must not hold a run yet.

    Raises:
        CheckpointError: when it holds a run already, or another process is using it.
        ConfigError: when the folder cannot be created or written to.
    """
    with locked(folder):
        if new and holds_run(folder):
            raise CheckpointError(_taken(folder))
        yield


@contextmanager
def locked(folder: Path, seconds: float = 0) -> Iterator[None]:
    """Keep other processes out of a folder. The lock is reentrant, and the system releases it when the process ends.

    Args:
        folder: is created if it does not exist.
        seconds: how long to wait for another process to release it.

    Raises:
        CheckpointError: when another process is using it.
        ConfigError: when the folder cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.resolve() / LOCK, timeout=0, is_singleton=True)
        lock.acquire(timeout=seconds)
    except Timeout:
        raise CheckpointError(f"Another run is using {folder}. Wait until it ends, or use another folder.") from None
    except OSError as error:
        raise ConfigError(
            f"The folder of the run, {folder}, cannot be written to: {error.strerror or error}. Set another one with "
            "hydra.run.dir=FOLDER (for a sweep hydra.sweep.dir=FOLDER)."
        ) from error
    try:
        yield
    finally:
        lock.release()


def holds_run(folder: Path) -> bool:
    """Whether a run has begun to train there."""
    return any((folder / name).exists() for name in OF_A_RUN)


def start_again(folder: Path, *, finished: bool) -> None:
    """Remove the files of an earlier attempt at a sweep job, when the launcher starts it again after its process died.

    Args:
        folder: the folder of the job.
        finished: whether to remove also a finished attempt, whose result may not have reached the sweep. The caller
            knows that the folder belongs to this job.
    """
    if not holds_run(folder) or (status_of(folder) == "finished" and not finished):
        return
    for name in LEFTOVERS:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def refuse_trials(folder: Path) -> None:
    """Refuse to begin a sweep in the folder of another sweep.

    Raises:
        ConfigError: when the folder holds the runs of another sweep.
    """
    taken = next((found for found in sorted(folder.glob("[0-9]*")) if holds_run(found)), None)
    if taken is not None or holds_run(folder):
        raise ConfigError(
            f"{folder} holds the runs of another sweep, for example {taken or folder}, which would be replaced. Set "
            "another hydra.sweep.dir, or remove the folder."
        )


def _find_run(config: DictConfig) -> None:
    """Set ``resume.run`` to the run that ``resume=auto`` finds, or to None if there is none and a new run begins."""
    found = ""
    if is_main():
        found = str(newest_unfinished(_folders(config), own_overrides(config.hydra.overrides.task)) or "")
        if several_processes():
            store().set("resume", found)
    else:
        found = store().get("resume").decode()
    config.resume.run = found or None
    if found and is_main():
        _put(config, "run.dir", found)
        _put(config, "output_subdir", None)  # leaves .hydra/ as it was when the run began


def _folders(config: DictConfig) -> list[Path]:
    """The folders that match ``hydra.run.dir`` at any time, sorted by name."""
    raw = OmegaConf.to_container(config.hydra.run, resolve=False)
    assert isinstance(raw, dict)
    timeless, num_times = _NOW.subn(_ANY_TIME, str(raw["dir"]))
    if not num_times:
        return [_resolved(config)]
    _put(config, "run.dir", timeless)
    pattern = escape(str(_resolved(config))).replace(_ANY_TIME, "*")
    _put(config, "run.dir", raw["dir"])
    return [Path(found) for found in sorted(glob(pattern))]


def _put(config: DictConfig, key: str, value: object) -> None:
    with read_write(config.hydra):
        OmegaConf.update(config.hydra, key, value)


def _resolved(config: DictConfig) -> Path:
    """``hydra.run.dir`` as Hydra will resolve it in a moment."""
    before = HydraConfig.instance().cfg
    try:
        HydraConfig.instance().set_config(config)
        return Path(str(config.hydra.run.dir))
    finally:
        HydraConfig.instance().cfg = before


def _taken(folder: Path) -> str:
    status = status_of(folder)
    resume = shlex.join(["python", "-m", "ftexp", f"resume={folder}"])
    if status == "finished":
        return f"{folder} holds a finished run. Set another hydra.run.dir, or remove the folder."
    ended = "that was interrupted" if status in (None, "interrupted") else f"that ended as {status}"
    return (
        f"{folder} holds a run {ended}. Resume it ({resume}), set another hydra.run.dir for a new one, or remove the "
        "folder."
    )


@contextmanager
def _through_hydra() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise StoppedEarly from error
