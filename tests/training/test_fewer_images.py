"""Where the time is limited, a run trains on as many images as one pass of the frozen network has time for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Compose, TinyNet
from timed_runs import NO_END, stop_after, timed
from tiny_runs import SMALL, colours, resumed
from workplaces import Workplace, workplace

from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.errors import InterruptedRunError
from ftexp.machine.device_kinds import KINDS
from ftexp.machine.runtime import prepare_runtime
from ftexp.run import run
from ftexp.training import fewer_images, run_time
from ftexp.training.fewer_images import images_in_time, take_images
from ftexp.training.image_seconds import seconds_per_image
from ftexp.training.inputs.input_source import InputSource
from ftexp.training.step import Step

__all__ = ["workplace"]


def samples_of(**sizes: int) -> list[Sample]:
    return [Sample(f"{label}/{number}", label) for label, size in sizes.items() for number in range(size)]


def paths_of(samples: Sequence[Sample]) -> list[str]:
    return [sample.path for sample in samples]


def test_of_each_class_the_same_share_is_drawn_and_a_few_at_least() -> None:
    train = samples_of(many=600, some=300, few=12, two=2)
    taken = take_images(train, 300, seed=0)
    assert len(taken) == 300
    counts = Counter(sample.label for sample in taken)
    assert counts["two"] == 2
    assert counts["few"] >= 10
    assert abs(counts["many"] - 2 * counts["some"]) <= 2
    paths = paths_of(taken)
    assert paths == [path for path in paths_of(train) if path in paths]  # in their order
    assert set(paths_of(take_images(train, 100, seed=0))) < set(paths)
    assert paths_of(take_images(train, 300, seed=1)) != paths
    for number in (914, 10_000):
        assert paths_of(take_images(train, number, seed=0)) == paths_of(train)


def test_the_images_that_one_pass_has_time_for(configure: Compose) -> None:
    train = samples_of(a=500, b=500)
    assert images_in_time(timed(configure, per_image=0.01), train) == 1000
    # 0.7 of 60 s are 840 images of 0.05 s, 100 of which are those of validation.
    assert images_in_time(timed(configure, per_image=0.05), train) == 740
    assert images_in_time(timed(configure, per_image=10.0), train) == 100  # as many as validation has
    assert images_in_time(timed(configure, num_images=(1000, 5, 0), per_image=10.0), train) == 20  # ten of each class
    assert images_in_time(timed(configure, per_image=10.0), train[:15]) == 15


def test_a_pass_by_onnx_runtime_is_faster_after_an_export(configure: Compose) -> None:
    fast = timed(configure, "runtime.frozen_engine=onnxruntime", per_image=0.1)
    # The command took 3 s to start, so that the export takes 1.5.
    assert fast.images_of_a_pass == int((0.7 * 60 - 1.5) / 0.065)


def test_slow_scoring_is_measured_by_fewer_batches(configure: Compose) -> None:
    runtime = prepare_runtime(configure("runtime.device=cpu").runtime)
    batches = SimpleNamespace(
        num_batches=3, epoch=lambda _: ((torch.zeros(4, 3, 8, 8), torch.zeros(4)) for _ in range(3))
    )
    for seconds, counted in ((0.1, 2), (0.6, 1)):
        ticks = iter(number * seconds for number in (0, 1.5, 2.5, 3.5))  # the first batch is slower
        clock = [0]

        def now(ticks: object = ticks, clock: list[int] = clock) -> float:
            clock[0] += 1
            return next(ticks)  # type: ignore[call-overload, no-any-return]

        measured = seconds_per_image(TinyNet(), batches, runtime, now)  # type: ignore[arg-type]
        assert measured == pytest.approx(seconds / 4)
        assert clock[0] == 2 + counted


@pytest.mark.parametrize(("first", "later", "sizes", "expected"), [(18, 1, [4, 4], 1 / 4), (0.3, 0.2, [4] * 3, 0.05)])
@pytest.mark.parametrize("count", [1, 5, 9, 12, 30])
def test_whole_batches_are_measured_where_a_size_is_prepared(
    configure: Compose,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    first: float,
    later: float,
    sizes: list[int],
    expected: float,
) -> None:
    """However few images there are: a batch with one of them would take as long as one with four.

    The first forward of a size takes longer, and after a second no batch begins.
    """
    monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], prepares_sizes=True))
    run_time, seen = timed(configure, *SMALL, "train.batch_size=4"), list[int]()
    run_time.clock = lambda: sum(later if size in seen[:number] else first for number, size in enumerate(seen))
    run_time.network.module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    samples = colours(count, 1)
    splits = Splits(colours(16, 2), samples, TestSplit([]), ("b", "g", "r", "x"))
    run_time.measure(InputSource(run_time.config, run_time.network, splits, run_time.runtime), samples)
    assert seen == sizes
    assert run_time.per_image == pytest.approx(expected)


SETTINGS = ("stage=auto", "stage.epochs=2", "train.max_minutes=0.5", *NO_END)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewer_images, "LEAST_OF_A_CLASS", 2)
    monkeypatch.setattr(run_time, "seconds_per_image", lambda *_: 20.0)


def facts(place: Path) -> tuple[int | None, int]:
    """The number of training images in ``run.json``, and of those that the head was solved on."""
    identity = json.loads((place / "run.json").read_text())
    solution = json.loads((place / "solution.json").read_text())
    return identity["train_images"], solution["num_images"]


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(
    "given",
    [(), ("head.depth=last",), ("head.depth=last", "stage=partial", "head.init=solved")],
    ids=["all depths", "last depth", "start"],
)
def test_a_run_without_time_for_a_pass_solves_the_head_on_fewer_images(
    workplace: Workplace, caplog: pytest.LogCaptureFixture, given: tuple[str, ...]
) -> None:
    place = workplace.folder / "limited"
    run(workplace.begin(*SETTINGS, *given), place)
    assert facts(place) == (8, 8)
    assert "8 of 16 training images are used: train.max_minutes=0.5 leaves too little time" in caplog.text


def test_a_run_with_time_enough_trains_on_all(workplace: Workplace, caplog: pytest.LogCaptureFixture) -> None:
    place = workplace.folder / "enough"
    run(workplace.begin(*SETTINGS), place)
    assert facts(place) == (16, 16)
    assert "training images are used" not in caplog.text


@pytest.mark.usefixtures("slow")
def test_steps_take_what_time_there_is_of_all_images(workplace: Workplace) -> None:
    place = workplace.folder / "steps"
    run(workplace.begin("stage=full", "stage.epochs=1", "train.max_minutes=0.5", *NO_END), place)
    assert json.loads((place / "run.json").read_text())["train_images"] == 16


@pytest.mark.parametrize("format_number", [7, 8])
def test_a_resumed_run_goes_on_with_as_many_images(
    format_number: int, workplace: Workplace, monkeypatch: pytest.MonkeyPatch, slow: None
) -> None:
    place = workplace.folder / "stopped"
    settings = ("stage=head", "head.solver=sgd", "head.depth=all", "stage.epochs=3", "train.max_minutes=0.5", *NO_END)
    with monkeypatch.context() as patch:
        patch.setattr(Step, "update", stop_after(0, Step.update))
        with pytest.raises(InterruptedRunError):
            run(workplace.begin(*settings), place)
    if format_number == 7:  # which had no such field: all images were trained on, however long that took
        identity = json.loads((place / "run.json").read_text())
        assert identity.pop("train_images") == 8
        (place / "run.json").write_text(json.dumps({**identity, "format": 7}))
    else:
        monkeypatch.setattr(run_time, "seconds_per_image", lambda *_: 0.001)
    run(resumed(workplace.begin(*settings), place), place)
    assert json.loads((place / "run.json").read_text())["train_images"] == (16 if format_number == 7 else 8)


@pytest.mark.usefixtures("slow")
def test_the_epochs_of_later_phases_are_planned_for_fewer_images(workplace: Workplace) -> None:
    place = workplace.folder / "partial"
    settings = ("stage=partial", "head.init=solved", "stage.epochs=1", "train.max_minutes=0.5", *NO_END)
    run(workplace.begin(*settings), place)
    (entry,) = json.loads((place / "run.json").read_text())["time_plan"]
    assert entry["updates_of_all_epochs"] == 2  # of 4 of 8 images
