"""Observers are asked once before every epoch except the first."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Compose
from tiny_runs import CPU, colours, fit

from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.errors import PrunedError
from ftexp.evaluation.gate import Verdict
from ftexp.evaluation.history import EpochRecord
from ftexp.training import fit as fit_module
from ftexp.training.inputs.input_source import InputSource

pytestmark = pytest.mark.usefixtures("no_pictures")

SETTINGS = (*CPU, "train.batch_size=8", "optimizer.head_lr=0.05", "stage.gate=off")


@pytest.fixture
def splits() -> Splits:
    return Splits(colours(44, seed=1), colours(21, seed=2), TestSplit(colours(10, seed=3)), ("b", "g", "r", "x"))


class Diary:
    """Notes what it is told; ends the run when it is asked for the last time allowed."""

    def __init__(self, ends_after: int = 99) -> None:
        self.told: list[int] = []
        self.asked: list[int] = []
        self._ends_after = ends_after

    def __call__(self, record: EpochRecord) -> None:
        self.told.append(record.epoch)

    def before_epoch(self) -> None:
        self.asked.append(len(self.told))
        if len(self.told) >= self._ends_after:
            raise PrunedError("enough")


@pytest.mark.parametrize(
    ("stage", "epochs"),
    [
        (("stage=head", "stage.epochs=1"), 1),
        (("stage=head", "stage.epochs=3"), 3),
        (("stage=gradual", "stage.epochs=1"), 3),
    ],
)
def test_it_is_asked_after_every_epoch_but_the_last(
    configure: Compose, splits: Splits, tmp_path: Path, stage: tuple[str, ...], epochs: int
) -> None:
    diary = Diary()
    fit(configure(*SETTINGS, *stage), splits, tmp_path, diary)
    assert diary.told == list(range(1, epochs + 1))
    assert diary.asked == list(range(1, epochs))


def test_the_epoch_at_which_patience_ends_the_run_is_the_last(
    configure: Compose, splits: Splits, tmp_path: Path
) -> None:
    settings = ("stage=head", "stage.epochs=9", "train.patience=1", "optimizer.head_lr=1e-9")
    diary = Diary()
    fit(configure(*SETTINGS, *settings), splits, tmp_path, diary)
    assert diary.told == [1, 2]
    assert diary.asked == [1]


def test_a_phase_that_the_gate_does_not_keep_ends_the_run_unasked(
    configure: Compose, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("stage=staged", "stage.epochs=1", "stage.gate=better", "stage.margin=1")
    monkeypatch.setattr(
        fit_module, "best_case", lambda *_: Verdict(kept=True, before=0, after=1, gained=0, lost=0, p_value=None)
    )
    diary = Diary()
    fit(configure(*SETTINGS, *settings), splits, tmp_path, diary)
    assert diary.told == [1, 2], "the second phase cannot be better by 1, and no third one begins"
    assert diary.asked == [1]


@pytest.mark.parametrize(("ends_after", "sources"), [(1, 1), (2, 1)])
def test_what_it_raises_ends_the_run_before_the_next_phase_is_prepared(
    configure: Compose, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_after: int, sources: int
) -> None:
    opened, original = [], InputSource.for_phase
    monkeypatch.setattr(InputSource, "for_phase", lambda self, phase: opened.append(phase) or original(self, phase))
    diary = Diary(ends_after)
    with pytest.raises(PrunedError, match="enough"):
        fit(configure(*SETTINGS, "stage=staged", "stage.epochs=2"), splits, tmp_path, diary)
    assert diary.told == list(range(1, ends_after + 1))
    assert len(opened) == sources
