"""The folder of a run belongs to that run alone: it is claimed before Hydra, or anything of ours, writes to it."""

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

from ftexp.cli.resume_arguments import AUTO, IDENTITY, LOCK, RESULT, newest_unfinished, own_overrides, status_of
from ftexp.errors import CheckpointError, ConfigError
from ftexp.machine.torchrun import is_main, several_processes, store

# Any of these says that a run has begun to train in a folder.
OF_A_RUN = (IDENTITY, RESULT, "checkpoints/best.pt", "checkpoints/last.pt")
# What a job of a sweep that starts again makes anew; all else is written over.
LEFTOVERS = (IDENTITY, RESULT, "metrics.csv")
NOTHING_FOUND = "ftexp: resume=auto: no unfinished run of this command, so a new one begins."
# A time in hydra.run.dir, by Hydra's own resolver; the runs of a command differ in it.
_NOW = re.compile(r"\$\{now:[^}]*\}")
_ANY_TIME = "ANY-TIME"
_NUMBERED = "${hydra.job.num}"


class StoppedEarly(BaseException):
    """Carries a mistake of the user's, its cause, through Hydra, which only warns of an Exception of a callback."""


class ClaimFolder(Callback):
    """Hydra's callback that claims the folder of a run, and finds it where ``resume=auto`` is given."""

    def __init__(self) -> None:
        self._claim = ExitStack()

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Before Hydra makes the folder."""
        with _through_hydra():
            auto = config.resume.run == AUTO
            if auto:
                _find_run(config)
            if is_main():
                self._claim.enter_context(claimed(_resolved(config), new=config.resume.run is None))
                if auto and config.resume.run is None:
                    print(NOTHING_FOUND, file=sys.stderr)

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        """However it ended."""
        self._claim.close()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Before the first job of a sweep. A search sees to its own folder: its trials go on where they stopped."""
        with _through_hydra():
            if config.resume.run is not None:
                raise ConfigError("resume= goes on with one run. A sweep goes on when its own command is given again.")
            sweep = OmegaConf.to_container(config.hydra.sweep, resolve=False)
            assert isinstance(sweep, dict)
            if "pruner" not in config.hydra.sweeper and sweep["subdir"] == _NUMBERED:
                refuse_trials(Path(config.hydra.sweep.dir))


@contextmanager
def claimed(folder: Path, *, new: bool) -> Iterator[None]:
    """Keep every other run out of a folder.

    Args:
        new: whether the run begins there, so that there must be none yet.

    Raises:
        CheckpointError: when there is one, or another one is at work there.
        ConfigError: when there can be no such folder.
    """
    with locked(folder):
        if new and holds_run(folder):
            raise CheckpointError(_taken(folder))
        yield


@contextmanager
def locked(folder: Path, seconds: float = 0) -> Iterator[None]:
    """Keep other processes out of a folder; this thread may ask for it again. The lock goes with the process.

    Args:
        seconds: to wait for whoever has it.

    Raises:
        CheckpointError: when another run is at work there.
        ConfigError: when the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.resolve() / LOCK, timeout=0, is_singleton=True)
        lock.acquire(timeout=seconds)
    except Timeout:
        raise CheckpointError(f"Another run is at work in {folder}. Wait for it, or take another folder.") from None
    except OSError as error:
        raise ConfigError(
            f"The folder of the run, {folder}, cannot be written to: {error.strerror or error}. hydra.run.dir=FOLDER "
            "(of a sweep: hydra.sweep.dir=FOLDER) takes another."
        ) from error
    try:
        yield
    finally:
        lock.release()


def holds_run(folder: Path) -> bool:
    """Whether a run has begun to train there."""
    return any((folder / name).exists() for name in OF_A_RUN)


def start_again(folder: Path, *, finished: bool) -> None:
    """Remove what a job of a sweep left in its folder, when the launcher starts it again after its process was lost.

    Args:
        finished: also when it has finished, for its result may be lost. The folder is known to be this job's.
    """
    if not holds_run(folder) or (status_of(folder) == "finished" and not finished):
        return
    for name in LEFTOVERS:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def refuse_trials(folder: Path) -> None:
    """Refuse to begin a sweep where the jobs of another one have their folders.

    Raises:
        ConfigError: when there is one.
    """
    taken = next((found for found in sorted(folder.glob("[0-9]*")) if holds_run(found)), None)
    if taken is not None or holds_run(folder):
        raise ConfigError(
            f"{folder} holds the runs of another sweep, {taken or folder} for one, which would be replaced. Take "
            "another hydra.sweep.dir, or remove the folder."
        )


def _find_run(config: DictConfig) -> None:
    """Put the run that ``resume=auto`` finds in its place; without one, a new run begins."""
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
        _put(config, "output_subdir", None)  # .hydra/ stays as it was when the run began


def _folders(config: DictConfig) -> list[Path]:
    """Where runs of this command lie: ``hydra.run.dir`` at any time, in the order of their names."""
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
        return f"{folder} holds a run that has finished. Take another hydra.run.dir, or remove the folder."
    ended = "that was stopped" if status in (None, "interrupted") else f"that ended as {status}"
    return (
        f"{folder} holds a run {ended}. Go on with it ({resume}), take another hydra.run.dir for a new one, or remove "
        "the folder."
    )


@contextmanager
def _through_hydra() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise StoppedEarly from error
