"""Whole phases on compiled code: two graphs each, and the curve of eager code."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Compose, TinyNet
from tiny_runs import SMALL, colours, curve, fit, subfolder
from torch._dynamo.utils import counters

from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.training.compilation import CompiledForward

pytestmark = pytest.mark.usefixtures("no_pictures")

# What compiled code is compared with: nothing is folded in it, either.
PLAIN = ("stage.epochs=2", "runtime.fold_batchnorm=false")


@pytest.fixture
def splits() -> Splits:
    """Short last batches in training and in validation."""
    return Splits(colours(43, seed=1), colours(21, seed=2), TestSplit(colours(10, seed=3)), ("b", "g", "r", "x"))


def compile_with(monkeypatch: pytest.MonkeyPatch, backend: Callable[..., Any]) -> None:
    monkeypatch.setattr("ftexp.training.compilation.CompiledForward", partial(CompiledForward, backend=backend))


@pytest.mark.parametrize(
    ("settings", "phases"),
    [
        (("stage=head", "optimizer=sgd"), 1),
        (("stage=partial", "augment=light", "runtime.precision=bf16", "train.accumulate=2"), 1),
        (("stage=full", "bn_policy=train", "train.ema=0.9", "augment.mixup=0.4", "train.wise_ft=[0.5]"), 1),
        (("stage=staged", "stage.gate=off", "bn_policy=train", "train.ema=0.9", "runtime.precision=bf16"), 3),
        (("stage=lora", "stage.rank=1", "optimizer=sgd"), 1),
    ],
    ids=["head", "partial", "full", "staged", "lora"],
)
def test_every_phase_is_two_graphs_and_has_the_curve_of_eager_code(
    configure: Compose,
    splits: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: tuple[str, ...],
    phases: int,
) -> None:
    graphs: list[weakref.ref[torch.fx.GraphModule]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(weakref.ref(graph))
        return graph.forward

    compile_with(monkeypatch, backend)
    counters.clear()
    eager, compiled = (
        fit(configure(*SMALL, *settings, *PLAIN, f"runtime.compile={on}"), splits, subfolder(tmp_path, on))
        for on in ("false", "true")
    )
    assert len(graphs) == counters["stats"]["unique_graphs"] == 2 * phases
    assert not counters["graph_break"]
    gc.collect()
    assert [graph for graph in graphs if graph() is not None] == [], "they are freed at the end of their phase"
    assert set(compiled.network.module.state_dict()) == set(TinyNet().state_dict()), "under their plain names"
    for one, other in zip(curve(compiled), curve(eager), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "phases", "rel"),
    [
        (("stage=head", "head.solver=sgd"), 1, 3e-4),
        (("stage=partial",), 1, 3e-4),
        (("stage=full",), 1, 3e-4),
        (("stage=full", "bn_policy=train", "train.ema=0.9", "augment.mixup=0.4"), 1, 3e-4),
        (("stage=full", "runtime.precision=bf16"), 1, 5e-3),
        (("stage=staged", "stage.gate=off", "bn_policy=train", "train.ema=0.9"), 3, 3e-4),
        (("stage=staged", "stage.gate=off", "bn_policy=train", "train.ema=0.9", "runtime.precision=bf16"), 3, 5e-3),
        (("stage=lora", "stage.rank=1", "runtime.precision=bf16"), 1, 5e-3),
    ],
    ids=["head", "partial", "full", "statistics", "bf16", "staged", "staged-bf16", "lora"],
)
def test_the_compiler_makes_two_graphs_a_phase_and_changes_nothing_but_rounding(
    configure: Compose,
    splits: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    settings: tuple[str, ...],
    phases: int,
    rel: float,
) -> None:
    """Without dropout, for which compiled code draws other numbers."""
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, inputs: inputs)
    counters.clear()
    eager, compiled = (
        fit(configure(*SMALL, *settings, f"runtime.compile={on}"), splits, subfolder(tmp_path, on))
        for on in ("false", "true")
    )
    assert "continuing in eager mode" not in caplog.text
    assert counters["stats"]["unique_graphs"] == 2 * phases
    assert not counters["graph_break"]
    losses = [[(record.train_loss, record.val_loss) for record in result.history] for result in (compiled, eager)]
    for one, other in zip(*losses, strict=True):
        assert one == pytest.approx(other, rel=rel)
