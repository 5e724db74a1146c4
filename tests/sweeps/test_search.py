"""The loop of a search, with a study in a journal and without any run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.pruners import NopPruner
from optuna.trial import Trial, TrialState

from ftexp.errors import ConfigError, UserError
from ftexp.sweeps.search import Search
from ftexp.sweeps.space import Space
from ftexp.sweeps.study import JOURNAL, RETRY_OF, SharedStudy
from ftexp.sweeps.summary import Summary
from ftexp.sweeps.sweep import _begin_study, _enqueue_missing
from ftexp.sweeps.sweep_plan import SweepPlan


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SharedStudy]:
    study = SharedStudy(tmp_path, f"{JOURNAL}{tmp_path / 'study.journal'}", "mine", ["maximize"])
    yield study
    study.close()


def lists(**values: tuple[Any, ...]) -> Space:
    """A space of lists, as of ``x=1,2``."""
    ranges = {key: CategoricalDistribution(choices) for key, choices in values.items()}
    return Space(dict(ranges), {key: ",".join(map(str, v)) for key, v in values.items()}, (), {}, listed=True)


def begin(shared: SharedStudy, space: Space, folder: Path) -> None:
    points = {"is_grid": True, "first_points": space.combinations()}
    _begin_study(shared, cast(SweepPlan, SimpleNamespace(space=space, pruner=NopPruner(), epochs=1, **points)), folder)


class FailingLauncher:
    """Every trial of it fails."""

    def launch(self, overrides: list[Any], initial_job_idx: int) -> list[object]:
        class Failed:
            @property
            def return_value(self) -> object:
                raise OSError("no such image")

        return [Failed() for _ in overrides]


def search(shared: SharedStudy, space: Space, total: int, num_jobs: int = 1, rate: float = 1.0) -> Search:
    ended = SimpleNamespace(trial_ended=lambda *_: None, num_ended=1)
    return Search(shared, space, FailingLauncher, cast(Summary, ended), total, num_jobs, rate)


def test_numbers_that_are_close_are_different_points(tmp_path: Path, shared: SharedStudy) -> None:
    points = lists(seed=(20240101, 20240102), x=(0.1, 0.1 + 1e-9)).combinations()
    for _ in range(2):  # a process that comes later queues nothing
        _enqueue_missing(shared.study, points)
        queued = [trial.system_attrs["fixed_params"] for trial in shared.study.trials]
        assert queued == points
    space = lists(seed=(20240101, 20240102), x=(0.1, 0.1 + 1e-9))
    search(shared, space, total=4).run()
    _enqueue_missing(shared.study, points)
    assert [trial.params for trial in shared.study.trials] == points


def test_values_that_were_drawn_are_not_queued_again(shared: SharedStudy) -> None:
    space = lists(x=(1, 2))
    drawn = space.draw(shared.study.ask())
    _enqueue_missing(shared.study, space.combinations())
    (_, queued) = shared.study.trials
    assert queued.system_attrs["fixed_params"] == {"x": 3 - drawn["x"]}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (CategoricalDistribution((1, 2)), CategoricalDistribution((1, 3))),
        (FloatDistribution(1, 2), CategoricalDistribution((1, 2))),
        (FloatDistribution(1, 2), FloatDistribution(1, 2, log=True)),
    ],
)
def test_another_range_needs_another_study(
    tmp_path: Path, shared: SharedStudy, before: optuna.distributions.BaseDistribution, now: Any
) -> None:
    Space({"x": before}, {"x": "before"}, (), {}, listed=False).draw(shared.study.ask())
    space = Space({"x": now}, {"x": "choice(1, 3)"}, (), {}, listed=False)
    message = (
        r"^The study mine has another range of x than choice\(1, 3\), the one of this search\. Choose another name for "
        r"this search: hydra\.sweeper\.study_name=NAME\.$"
    )
    with pytest.raises(ConfigError, match=message):
        search(shared, space, total=9).run()
    if isinstance(now, CategoricalDistribution):
        with pytest.raises(ConfigError, match=message):
            begin(shared, space, tmp_path)
    assert len(shared.study.trials) == 1, "neither asked for nor queued"


def test_an_interval_may_be_moved(shared: SharedStudy) -> None:
    Space({"x": FloatDistribution(1, 2)}, {"x": ""}, (), {}, listed=False).draw(shared.study.ask())
    Space({"x": FloatDistribution(2, 4)}, {"x": ""}, (), {}, listed=False).check_study(shared.study)


class Stopped(Space):
    """Ctrl-C comes while the second trial draws its values."""

    def draw(self, trial: Trial) -> dict[str, Any]:
        if trial.number == 1:
            raise KeyboardInterrupt
        return super().draw(trial)


def test_trials_that_were_asked_for_are_given_up_at_once(shared: SharedStudy) -> None:
    space = lists(x=(1, 2))
    stopped = Stopped(space.ranges, space.texts, (), {}, listed=True)
    with pytest.raises(KeyboardInterrupt):
        search(shared, stopped, total=2, num_jobs=2).run()
    first, second, again = shared.study.trials
    assert [first.state, second.state, again.state] == [TrialState.FAIL, TrialState.FAIL, TrialState.WAITING]
    assert again.user_attrs[RETRY_OF] == 0
    assert shared.claimed() == []


@pytest.mark.parametrize(("rate", "total", "allowed"), [(0.3, 3, 0), (0.5, 3, 1), (0.3, 10, 3)])
def test_a_whole_number_of_trials_may_fail(shared: SharedStudy, rate: float, total: int, allowed: int) -> None:
    with pytest.raises(UserError, match=rf"max_failure_rate allows {allowed} of {total} to fail\. The last one: OSErr"):
        search(shared, lists(x=(1, 2)), total, rate=rate).run()
    assert len(shared.study.trials) == allowed + 1
