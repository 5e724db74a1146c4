"""A phase with adapters in a whole run: what it changes, what is saved, what the phases after it begin with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Compose, TinyNet
from tiny_runs import SMALL, colours, fit, fresh_network, subfolder
from torch import Tensor

from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.errors import DivergedError
from ftexp.training import fit as fit_module
from ftexp.training import phase_loop
from ftexp.training.checkpoints.checkpoint import LAST, load_checkpoint

pytestmark = pytest.mark.usefixtures("no_pictures")

ADAPTED = {"stem.0.weight", "body.0.weight"}
HEAD = {"fc.weight", "fc.bias"}
LORA = "{name: lora, learn: lora, patterns: ['*'], rank: 1, alpha: 4, epochs: 2}"


@pytest.fixture
def splits() -> Splits:
    return Splits(colours(44, seed=1), colours(21, seed=2), TestSplit(colours(10, seed=3)), ("b", "g", "r", "x"))


def staged(*phases: str) -> list[str]:
    return [*SMALL, "stage.last_blocks=null", "stage.gate=off", f"stage.phases=[{','.join(phases)}]"]


def test_the_weights_move_by_a_low_rank_and_stay_frozen_until_the_phase_ends(
    configure: Compose, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="ftexp"):
        result = fit(configure(*staged(LORA), "bn_policy=train"), splits, tmp_path)
    before, after = fresh_network().module.state_dict(), result.network.module.state_dict()
    assert list(after) == list(before)
    assert type(result.network.module.body[0]) is torch.nn.Conv2d
    assert {name for name in before if not torch.equal(before[name], after[name])} == ADAPTED | HEAD
    for name in ADAPTED:
        strengths = torch.linalg.svdvals((after[name] - before[name]).flatten(1))
        assert strengths[1] < 1e-4 * strengths[0]  # rank 1
    assert "cache   off: adapters of the first block, stem, are trainable" in caplog.messages
    last = load_checkpoint(tmp_path / "checkpoints" / LAST)
    assert set(last["model"]) == set(before)
    kept = last["phase"]["adapters"]
    assert all(torch.equal(kept[f"{name[:-7]}.parametrizations.weight.original"], before[name]) for name in ADAPTED)
    plain = TinyNet()
    plain.load_state_dict(load_checkpoint(tmp_path / "checkpoints" / "best.pt")["model"])
    assert all(torch.equal(tensor, after[name]) for name, tensor in plain.state_dict().items())


def test_a_phase_after_adapters_begins_with_the_merged_weights(
    configure: Compose, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(*staged(LORA), "train.ema=0.5")
    alone = fit(config, splits, subfolder(tmp_path, "alone")).network.module.state_dict()
    begun: list[dict[str, Tensor]] = []
    open_phase = fit_module.open_phase

    def opened(network: Any, *rest: Any) -> Any:
        begun.append({name: tensor.clone() for name, tensor in network.module.state_dict().items()})
        return open_phase(network, *rest)

    monkeypatch.setattr(fit_module, "open_phase", opened)
    config = configure(*staged(LORA, "{name: all, learn: all, epochs: 1}"), "train.ema=0.5")
    fit(config, splits, subfolder(tmp_path, "followed"))
    assert list(begun[1]) == list(begun[0])
    assert all(torch.equal(begun[1][name], alone[name]) for name in alone)


def test_a_higher_alpha_moves_the_weights_further(configure: Compose, splits: Splits, tmp_path: Path) -> None:
    start, moved = fresh_network().module.state_dict(), []
    for alpha in ("2", "40"):
        config = configure(*SMALL, "stage=lora", "stage.rank=2", f"stage.alpha={alpha}")
        end = fit(config, splits, subfolder(tmp_path, alpha)).network.module.state_dict()
        moved.append(sum(float((end[name] - start[name]).norm()) for name in ADAPTED))
    assert moved[1] > 5 * moved[0] > 0


def test_an_epoch_that_diverges_begins_again_from_the_adapters_before_it(
    configure: Compose, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With plain gradient descent and half the rates, the second attempt moves about half as far as the first one."""
    evaluate, seen = phase_loop.evaluate, []

    def diverging(forward: Callable[..., Any], *rest: Any, **settings: Any) -> Any:
        assert isinstance(forward, TinyNet)
        seen.append(forward.body[0].parametrizations["weight"][0].up.detach().clone())
        if len(seen) == 2:
            raise DivergedError("The validation loss is not finite.")
        return evaluate(forward, *rest, **settings)

    monkeypatch.setattr(phase_loop, "evaluate", diverging)
    settings = ("stage=lora", "stage.rank=1", "optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false")
    settings = (*settings, "scheduler=constant", "stage.epochs=2", "runtime.cache=off", "train.clip_norm=null")
    settings = (*settings, "runtime.fold_batchnorm=false")  # so that the forward is the network
    fit(configure(*SMALL, *settings, "train.nan_retries=1"), splits, tmp_path)
    first, twice, again = seen
    assert 0 < (again - first).norm() < 0.8 * (twice - first).norm()
