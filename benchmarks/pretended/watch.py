"""Counts what the epochs of a run copy and wait for: between their first and their last step, and around these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from benchmarks.pretended.counts import Counts, Snapshot
from ftexp.evaluation.scores import ScoreKeeper
from ftexp.inference.classifier import Classifier
from ftexp.inference.engine import NetworkEngine
from ftexp.training import phase_loop
from ftexp.training.step import Step


@dataclass(slots=True)
class Pass:
    """A pass over training or validation images.

    Attributes:
        kind: ``train``, ``validation``, ``test``, or ``answers`` of a command that classifies images.
        start: the counts before it.
        steps: the counts after each step, or after each batch that was scored.
        end: the counts after it.
        lines: what was counted between the first and the last step, by line.
    """

    kind: str
    start: Snapshot
    steps: list[Snapshot] = field(default_factory=list)
    end: Snapshot | None = None
    lines: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def between(self) -> Snapshot:
        """From the end of the first step to the end of the last one."""
        return self.steps[-1] - self.steps[0]

    @property
    def whole(self) -> Snapshot:
        """The whole pass."""
        assert self.end is not None
        return self.end - self.start

    @property
    def around(self) -> Snapshot:
        """All but ``between``."""
        return self.whole - self.between


@contextmanager
def watched(counts: Counts) -> Iterator[list[Pass]]:
    """Watch the epochs that are trained within the ``with``; yields their passes, in order."""
    passes: list[Pass] = []
    first: Counter[tuple[str, str]] = Counter()

    def as_pass(kind: str | None, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            passes.append(Pass(kind or args[4], counts.now()))  # evaluate is told the split
            try:
                return function(*args, **kwargs)
            finally:
                passes[-1].end = counts.now()

        return call

    def as_step(kinds: Sequence[str], function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            if passes and passes[-1].end is None and passes[-1].kind in kinds:
                if not passes[-1].steps:
                    first.clear()
                    first.update(counts.lines)
                passes[-1].steps.append(counts.now())
                passes[-1].lines = counts.lines - first
            return result

        return call

    def as_batches(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
            passes.append(Pass("answers", counts.now()))
            try:
                yield from function(*args, **kwargs)
            finally:
                passes[-1].end = counts.now()

        return call

    with ExitStack() as stack:
        for owner, name, value in (
            (phase_loop, "train_epoch", as_pass("train", phase_loop.train_epoch)),
            (phase_loop, "evaluate", as_pass(None, phase_loop.evaluate)),
            (Step, "update", as_step(["train"], Step.update)),
            (ScoreKeeper, "update", as_step(["validation", "test"], ScoreKeeper.update)),
            (Classifier, "prepared", as_batches(Classifier.prepared)),
            (NetworkEngine, "logits", as_step(["answers"], NetworkEngine.logits)),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        yield passes
