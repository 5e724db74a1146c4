"""An Optuna study that several processes share, and that can be continued later."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from ftexp.config.uri import hide_credentials
from ftexp.errors import ConfigError
from ftexp.hydra_internals import enqueued_values, trial_id
from ftexp.sweeps.heartbeat import GRACE_SECONDS, INTERVAL_SECONDS, Heartbeat
from ftexp.sweeps.locks import StudyLock

Direction = Literal["minimize", "maximize"]

JOURNAL = "journal:///"

# Attributes of a trial. LOST: its process died. RETRY_OF: number of the lost trial whose values it repeats.
SESSION, HOST, LOST, RETRY_OF, ERROR = "session", "host", "lost", "retry_of", "error"

# Attribute of the study: the configured epochs of a trial, for the pruner.
EPOCHS = "epochs"

log = logging.getLogger(__name__)


def name_study(prefix: str, settings: Mapping[str, Any], ranges: Mapping[str, str]) -> str:
    """A name that depends on settings and ranges: it is the same for the same ones, and differs for others.

    Args:
        prefix: the beginning of the name.
        settings: the fixed settings.
        ranges: the ranges as text.
    """
    content = json.dumps([settings, sorted(ranges.items())], sort_keys=True, default=str)
    return f"{prefix}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def open_storage(url: str) -> BaseStorage:
    """Open the storage of a URL; ``journal:///FILE`` is Optuna's journal file, which needs no database.

    Raises:
        ConfigError: if it cannot be opened.
    """
    if url.startswith(JOURNAL):
        with _explained(url, (OSError,)), _damage_explained(url):
            return JournalStorage(JournalFileBackend(url.removeprefix(JOURNAL)))
    with _explained(url, (Exception,)), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # about heartbeats
        return RDBStorage(url, heartbeat_interval=INTERVAL_SECONDS, grace_period=GRACE_SECONDS)


def _reach(url: str) -> None:
    """Connect to a database once, so that no folder of a sweep is made if it cannot be reached.

    Raises:
        ConfigError: if it cannot be reached.
    """
    if url.startswith((JOURNAL, "sqlite:")):  # files, which may not exist yet
        return
    with _explained(url):
        create_engine(url, poolclass=NullPool).connect().close()


@contextmanager
def _explained(url: str, errors: tuple[type[Exception], ...] = (SQLAlchemyError, ImportError)) -> Iterator[None]:
    """Turn a missing driver, a wrong URL or an unreachable server into a message."""
    try:
        yield
    except errors as error:
        shown, reason = hide_credentials(url), hide_credentials(str(error).splitlines()[0]).rstrip(".")
        raise ConfigError(
            f"hydra.sweeper.storage={shown} cannot be opened: {reason}. Allowed are null, journal:///FILE,"
            " sqlite:///FILE, and URLs of SQLAlchemy such as postgresql+psycopg://HOST/DATABASE."
        ) from error


@contextmanager
def _damage_explained(url: str) -> Iterator[None]:
    """Turn an invalid line in a journal into a message; all lines are read when the study is opened."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        if not url.startswith(JOURNAL):
            raise
        raise ConfigError(
            f"{url.removeprefix(JOURNAL)}, the journal of the search, is damaged ({error}). Restore it from a backup,"
            " or remove its folder to start the search again."
        ) from error


class SharedStudy:
    """The study for one process of a sweep. The trials of the process count as running while this object exists.

    Args:
        folder: the folder of the sweep with the locks; the same for all processes of the sweep on a machine.
        url: URL of the storage.
        name: name of the study.
        directions: ``maximize`` or ``minimize`` for each objective.

    Raises:
        ConfigError: if the storage cannot be opened, or has a study of this name with other objectives.
    """

    def __init__(self, folder: Path, url: str, name: str, directions: Sequence[Direction]) -> None:
        self._folder = folder
        self._url = url
        _reach(url)
        (folder / ".sessions").mkdir(parents=True, exist_ok=True)
        self._lock = StudyLock(folder / ".sessions" / "study.lock", url, name)
        with self.locked():  # two processes must not create the tables at the same time
            storage = open_storage(url)
            with _damage_explained(url):
                self.study = optuna.create_study(
                    storage=storage, study_name=name, directions=directions, load_if_exists=True
                )
            if [d.name.lower() for d in self.study.directions] != list(directions):
                raise ConfigError(
                    f"The study {name} has other objectives than this search. Choose another name for this search: "
                    "hydra.sweeper.study_name=NAME."
                )
            self.session = int(self.study.user_attrs.get("sessions", 0)) + 1
            self.study.set_user_attr("sessions", self.session)
            self._name = f"{self.session}-{uuid.uuid4().hex[:8]}"
            # Held until this process ends for any reason; it shows other processes that its trials are running.
            self._alive = FileLock(self._session_file(self._name))
            self._alive.acquire()
            self._heartbeat = Heartbeat(storage, self._own_running)
            self.take_back_lost()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other processes of the sweep from asking for trials.

        Raises:
            ConfigError: if the database cannot be reached.
        """
        with ExitStack() as held:
            with _explained(self._url):
                held.enter_context(self._lock.held())
            yield

    def close(self) -> None:
        """Mark the process as ended; its file stays if trials of it are running, so that they are found to be lost."""
        self._heartbeat.stop()
        self._alive.release()
        with suppress(Exception):  # a storage that cannot be reached has been reported, and the file does no harm
            if not self._own_running():
                Path(self._session_file(self._name)).unlink(missing_ok=True)

    def claimed(self) -> list[FrozenTrial]:
        """The trials that count: all except those that are waiting or lost."""
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state != TrialState.WAITING and not trial.user_attrs.get(LOST)
        ]

    def running(self) -> list[FrozenTrial]:
        """The running trials of all processes."""
        return [trial for trial in self.claimed() if trial.state == TrialState.RUNNING]

    def ask(self) -> Trial:
        """A new trial for this process. The study has to be locked."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Heartbeat of storage")  # Optuna's warning is about its own loop
            trial = self.study.ask()
        trial.set_user_attr(SESSION, self._name)
        trial.set_user_attr(HOST, socket.gethostname())
        self._heartbeat.note(trial_id(trial))
        return trial

    def take_back_lost(self) -> None:
        """Mark running trials whose processes have ended as lost. The study has to be locked."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        silent = self._heartbeat.silent(self.study) if running else set()
        for trial in running:
            if self._is_lost(trial, silent):
                self.give_up(trial.number)

    def hosts_at_work(self) -> list[str]:
        """The machines of the running trials."""
        return sorted({str(trial.user_attrs.get(HOST)) for trial in self.running()})

    def give_up(self, number: int) -> None:
        """Mark a trial as lost, and queue its values for one repetition."""
        trial = running_trial(self.study, number)
        planned = enqueued_values(self.study.get_trials(deepcopy=False)[number])
        values = {**planned, **trial.params}
        again = bool(values) and RETRY_OF not in trial.user_attrs
        if RETRY_OF in trial.user_attrs:
            trial.set_user_attr(ERROR, "its process died, as did that of the trial that it repeats")
        else:
            trial.set_user_attr(LOST, True)
            trial.set_user_attr(ERROR, "its process died")
            if again:
                self.study.enqueue_trial(values, user_attrs={RETRY_OF: number})
        self.study.tell(number, state=TrialState.FAIL)
        followed = "; its values are tried again" if again else ""
        log.info("trial %d was left unfinished by a process that has ended%s", number, followed)

    def _own_running(self) -> list[int]:
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial_id(trial) for trial in running if trial.user_attrs.get(SESSION) == self._name]

    def _is_lost(self, trial: FrozenTrial, silent: Collection[int]) -> bool:
        name = trial.user_attrs.get(SESSION)
        if name is None:
            return True  # its process died before it set SESSION; both steps are under the lock that we hold
        file = self._session_file(str(name))
        if not file.exists():  # a process with another folder, on this or another machine
            return trial_id(trial) in silent
        try:
            FileLock(file, timeout=0).acquire().lock.release()
        except Timeout:
            return False
        return True

    def _session_file(self, name: str) -> Path:
        return self._folder / ".sessions" / f"{name}.lock"


def running_trial(study: optuna.Study, number: int) -> Trial:
    """The running trial of a number, to which values and attributes can be reported."""
    return Trial(study, trial_id(study.get_trials(deepcopy=False)[number]))
