"""A whole run, from the configuration to its result."""

from __future__ import annotations

import json

import pytest
from test_generators import Workplace, workplace

from ftexp.run import run

__all__ = ["workplace"]


@pytest.mark.parametrize(("score_test", "resumable"), [(False, True), (True, False)])
def test_whether_it_can_be_resumed_does_not_depend_on_whether_the_test_split_is_scored(
    workplace: Workplace,
    score_test: bool,
    resumable: bool,
) -> None:
    folder = workplace.folder / "run"
    run(workplace.begin("stage=head"), folder, score_test=score_test, resumable=resumable)
    assert (folder / "checkpoints" / "last.pt").exists() == resumable
    assert (json.loads((folder / "result.json").read_text())["test"] is not None) == score_test
