"""The best epoch is the same after it was saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ftexp.evaluation.best import Best
from ftexp.evaluation.history import EpochRecord
from ftexp.evaluation.scores import ScoreKeeper
from ftexp.machine.distributed import ONE_PROCESS

RECORD = EpochRecord("head", 2, 0.4, 0.5, {"accuracy": 0.75}, 1.0, 0.1, 1e-3, None, 100.0, 2.0, best=True)


def saved(folder: Path) -> tuple[Best, dict[str, object]]:
    keeper = ScoreKeeper(3)
    keeper.update(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)
    best = Best(RECORD, keeper.compute(ONE_PROCESS)[0], folder / "best.pt", 0.5)
    return best, best.state_dict()


def test_it_is_read_as_it_was_saved(tmp_path: Path) -> None:
    best, state = saved(tmp_path)
    read = Best.from_state(state, tmp_path, 3)
    assert (read.record, read.checkpoint, read.alpha) == (best.record, best.checkpoint, best.alpha)
    for name in ("labels", "predictions", "ranks", "losses", "logits"):
        np.testing.assert_array_equal(getattr(read.scores, name), getattr(best.scores, name))


def test_an_older_version_saved_probabilities_or_none(tmp_path: Path) -> None:
    best, state = saved(tmp_path)
    del state["logits"]
    assert Best.from_state(state, tmp_path, 3).scores.logits is None
    state["probabilities"] = torch.from_numpy(best.scores.probabilities)
    np.testing.assert_allclose(
        Best.from_state(state, tmp_path, 3).scores.probabilities, best.scores.probabilities, rtol=1e-6
    )
