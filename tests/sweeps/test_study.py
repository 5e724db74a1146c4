"""Trials whose processes are gone, as the other processes of a study see them."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import optuna
import pytest
from filelock import FileLock
from optuna.trial import TrialState

from ftexp.errors import ConfigError
from ftexp.sweeps import heartbeat, study
from ftexp.sweeps.locks import StudyLock
from ftexp.sweeps.study import HOST, JOURNAL, LOST, RETRY_OF, SESSION, SharedStudy


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life every half second, and two seconds without one."""
    monkeypatch.setattr(heartbeat, "INTERVAL_SECONDS", 0.5)
    monkeypatch.setattr(study, "INTERVAL_SECONDS", 1)
    monkeypatch.setattr(study, "GRACE_SECONDS", 2)


def open_study(folder: Path, database: Path) -> SharedStudy:
    return SharedStudy(folder, f"sqlite:///{database}", "search", ["maximize"])


def take_back(shared: SharedStudy) -> None:
    with shared.locked():
        shared.take_back_lost()


@pytest.mark.usefixtures("short_grace")
def test_a_trial_of_another_machine_is_lost_when_its_signs_of_life_end(tmp_path: Path) -> None:
    here = open_study(tmp_path / "here", tmp_path / "study.db")
    there = open_study(tmp_path / "there", tmp_path / "study.db")  # sees none of the locks of here
    with there.locked():
        trial = there.ask()
    value = trial.suggest_float("x", 0, 1)
    time.sleep(3)
    take_back(here)
    assert here.study.trials[0].state == TrialState.RUNNING, "its process has shown signs of life all the time"
    assert here.hosts_at_work() == [trial.user_attrs[HOST]]

    there.close()  # as a machine that is switched off: the trial is left as it is
    time.sleep(3)
    take_back(here)
    lost, retry = here.study.trials
    assert (lost.state, lost.user_attrs[LOST], retry.state) == (TrialState.FAIL, True, TrialState.WAITING)
    with here.locked():
        again = here.ask()
    assert again.suggest_float("x", 0, 1) == value
    assert again.user_attrs[RETRY_OF] == 0
    assert [trial.number for trial in here.claimed()] == [1]
    here.close()


@pytest.mark.usefixtures("short_grace")
def test_a_trial_is_retried_once(tmp_path: Path) -> None:
    shared = open_study(tmp_path, tmp_path / "study.db")
    for _ in range(2):
        with shared.locked():
            trial = shared.ask()
            trial.suggest_float("x", 0, 1)
            shared.give_up(trial.number)
    first, second = shared.study.trials
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.FAIL)
    assert LOST in first.user_attrs
    assert LOST not in second.user_attrs, "it counts: no third one takes its place"
    shared.close()


def test_the_journal_has_no_signs_of_life_and_trusts_the_locks(tmp_path: Path) -> None:
    url = f"journal:///{tmp_path / 'study.journal'}"
    dead = SharedStudy(tmp_path, url, "search", ["maximize"])
    with dead.locked():
        dead.ask()
    dead._alive.release()  # as the end of its process would
    shared = SharedStudy(tmp_path, url, "search", ["maximize"])
    assert shared.study.trials[0].state == TrialState.FAIL
    shared.close()


def test_a_process_that_ends_before_its_trial_leaves_its_file(tmp_path: Path) -> None:
    url = f"{JOURNAL}{tmp_path / 'study.journal'}"
    ending = SharedStudy(tmp_path, url, "search", ["maximize"])
    with ending.locked():
        trial = ending.ask()
    ending.close()
    shared = SharedStudy(tmp_path, url, "search", ["maximize"])
    assert shared.study.trials[trial.number].state == TrialState.FAIL
    assert len(list((tmp_path / ".sessions").glob("[0-9]*.lock"))) == 2
    shared.close()
    assert len(list((tmp_path / ".sessions").glob("[0-9]*.lock"))) == 1, "that of a process without a trial"


def test_what_is_tried_again_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ftexp")
    shared = SharedStudy(tmp_path, f"{JOURNAL}{tmp_path / 'study.journal'}", "search", ["maximize"])
    for draws in (False, True, True):  # without a value, with one, and when it is repeated
        with shared.locked():
            trial = shared.ask()
            if draws:
                trial.suggest_float("x", 0, 1)
            shared.give_up(trial.number)
    left = "was left unfinished by a process that has ended"
    said = [record.getMessage() for record in caplog.records if record.name.startswith("ftexp.")]
    assert said == [f"trial 0 {left}", f"trial 1 {left}; its values are tried again", f"trial 2 {left}"]
    shared.close()


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_trial_that_nobody_signed_is_lost(tmp_path: Path) -> None:
    shared = open_study(tmp_path, tmp_path / "study.db")
    shared.study.ask()  # its process died before it could write its name
    with shared.locked():
        own = shared.ask()
        shared.take_back_lost()
    states = [trial.state for trial in shared.study.trials]
    assert states[:2] == [TrialState.FAIL, TrialState.RUNNING]
    assert shared.study.trials[own.number].user_attrs[SESSION]
    shared.close()


def test_no_other_process_asks_while_one_does(tmp_path: Path) -> None:
    lock = StudyLock(tmp_path / "study.lock", "sqlite:///study.db", "search")
    with lock.held(), pytest.raises(TimeoutError):
        FileLock(tmp_path / "study.lock", timeout=0).acquire()
    FileLock(tmp_path / "study.lock", timeout=0).acquire().lock.release()


def test_a_server_that_is_away_is_one_message(tmp_path: Path) -> None:
    url = "postgresql+psycopg://ftexp:secret@127.0.0.1:1/optuna"
    with pytest.raises(ConfigError, match=r"storage=postgresql\+psycopg://.*cannot be opened: .*refused") as caught:
        SharedStudy(tmp_path / "sweep", url, "search", ["maximize"])
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "sweep").exists()


def test_another_objective_needs_another_study(tmp_path: Path) -> None:
    open_study(tmp_path, tmp_path / "study.db").close()
    with pytest.raises(ConfigError, match=r"has other objectives than this search. .*hydra\.sweeper\.study_name=NAME"):
        SharedStudy(tmp_path, f"sqlite:///{tmp_path / 'study.db'}", "search", ["minimize"])
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path / 'study.db'}") == ["search"]


@pytest.mark.parametrize("damage", [b"\xa8\xff\n", b"\xa8", b"{}\n", b"[]\n", b"text\ntext\n"])
def test_a_damaged_journal_is_one_message(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "study.journal").write_bytes(damage)
    with pytest.raises(
        ConfigError, match=r"study.journal, the journal of the search, is damaged \(.*Restore it from a backup, or"
    ):
        SharedStudy(tmp_path, f"{JOURNAL}{tmp_path / 'study.journal'}", "search", ["maximize"])
