"""Layers that cache values computed from their weights in eval mode: the values belong to the current weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import timm
import torch
from conftest import Compose, TinyNet, make_phase, scores_of
from tiny_runs import resumed
from torch import Tensor

from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.errors import DivergedError
from ftexp.evaluation.best import Best
from ftexp.evaluation.history import EpochRecord
from ftexp.evaluation.scores import Scores
from ftexp.finetune.optimizers import build_optimizer
from ftexp.finetune.param_groups import build_param_groups
from ftexp.finetune.schedules import Schedule, Span
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.machine.runtime import prepare_runtime
from ftexp.models.blocks import Block, Network
from ftexp.models.eval_caches import drop_eval_caches
from ftexp.preprocessing import Preprocessing
from ftexp.training.checkpoints.checkpoint import checkpoint_content, restore_weights, write_checkpoint
from ftexp.training.checkpoints.run_checkpoints import RunCheckpoints
from ftexp.training.ema import build_ema
from ftexp.training.fit import Fit, fine_tune
from ftexp.training.recovery import Recovery
from ftexp.training.starting_weights import apply_wise_ft, backbone_state

IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


class KeepingNet(TinyNet):
    """Its token is computed once for eval mode, as timm's LeViT does with its attention biases."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Tensor | None = None

    def train(self, mode: bool = True) -> KeepingNet:
        super().train(mode)
        if mode:
            self.kept = None
        return self

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            return self.fc(self.body(self.stem(images)).mean(dim=(2, 3)) + self.token.exp())
        if self.kept is None:
            self.kept = self.token.detach().exp()
        return self.fc(self.body(self.stem(images)).mean(dim=(2, 3)) + self.kept)


@pytest.fixture
def used() -> Network:
    """A network that has scored images: whatever it keeps is there."""
    torch.manual_seed(0)
    half, blocks = (0.5, 0.5, 0.5), [Block("stem", ("stem",)), Block("body", ("body", "token"))]
    preprocessing = Preprocessing(8, 8, "bilinear", half, half)
    network = Network(KeepingNet(), blocks, head="fc", preprocessing=preprocessing, name="tiny", num_classes=4)
    network.module.eval()(IMAGES)
    return network


def assert_nothing_stale(network: Network) -> None:
    fresh = KeepingNet().eval()
    fresh.load_state_dict(network.module.state_dict())
    assert torch.equal(network.module(IMAGES), fresh(IMAGES))


def other_weights(network: Network) -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in network.module.state_dict().items()}


def test_modes_stay_as_they_are(used: Network) -> None:
    used.module.train()
    used.module.stem.eval()
    drop_eval_caches(used.module)
    modes = {name: module.training for name, module in used.module.named_modules()}
    assert [name for name, training in modes.items() if not training] == ["stem", "stem.0", "stem.1", "stem.2"]


def test_averages_in_the_weights_places_and_the_weights_put_back(used: Network) -> None:
    ema = build_ema(used, make_phase("body", "head"), 0.9)
    with torch.no_grad():
        used.module.token.add_(1)
    drop_eval_caches(used.module)
    ema.update()
    with ema.applied():
        assert_nothing_stale(used)
    assert_nothing_stale(used)


def test_an_epoch_that_is_taken_back(used: Network) -> None:
    phase = make_phase("body", "head")
    optimizer = build_optimizer(phase.optimizer, build_param_groups(used, phase), torch.device("cpu"))
    schedule = Schedule(phase.scheduler, optimizer, Span(1, 10, 80))
    recovery = Recovery(used, optimizer, schedule, build_ema(used, phase, None), retries=1)
    used.module.load_state_dict(other_weights(used))
    drop_eval_caches(used.module)
    used.module(IMAGES)
    recovery.recover(DivergedError())
    assert_nothing_stale(used)


def test_every_wise_ft_average_is_scored_as_it_is(used: Network) -> None:
    start = backbone_state(used)
    used.module.load_state_dict(other_weights(used))
    drop_eval_caches(used.module)
    accuracies = iter([0.0, 1.0, 0.0])

    def score() -> Scores:
        assert_nothing_stale(used)
        labels = np.zeros(1, dtype=np.int64)
        return scores_of(labels, labels + int(next(accuracies) == 0), 4)

    assert apply_wise_ft(used, start, [1.0, 0.5, 0.2], score, "accuracy")[0] == 0.5
    assert_nothing_stale(used)


@pytest.mark.parametrize("way", ["checkpoint", "best", "resume"])
def test_weights_from_files(
    used: Network, configure: Compose, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fit, "_run_phase", lambda *_: False)  # weights are restored before it
    config = configure("runtime.device=cpu", "stage=partial")
    content = checkpoint_content(used, config, {}, epoch=1)
    content["model"] = other_weights(used)
    write_checkpoint(tmp_path / "best.pt", content)
    run = {"history": "[]", "phase_number": 0, "best": None, "report": "{}"}
    write_checkpoint(tmp_path / "checkpoints" / "last.pt", {**content, "run_id": "", "run": run, "phase": {}})
    phases = (make_phase("head"),)
    splits, runtime = (
        Splits([Sample("a.png", "a")], [], TestSplit([]), ("a", "b", "c", "d")),
        prepare_runtime(config.runtime),
    )
    record = EpochRecord("head", 1, 1.0, 1.0, {"accuracy": 1.0}, 1.0, 0.0, 0.1, None, 1.0, 1.0, True)
    checkpoints = RunCheckpoints(tmp_path, used, config, {}, ONE_PROCESS)
    best = Best(record, scores_of(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), 4), tmp_path / "best.pt")
    ways: dict[str, Callable[[], object]] = {
        "checkpoint": lambda: restore_weights(used, content["model"], tmp_path / "best.pt"),
        "best": lambda: checkpoints.settle(best, kept=True),
        "resume": lambda: fine_tune(
            resumed(config, tmp_path), used, splits, phases, runtime, MagicMock(folder=tmp_path)
        ),
    }
    ways[way]()
    assert used.module.token.mean() == 1
    assert_nothing_stale(used)


FAMILIES = ["levit_128s", "tiny_vit_5m_224", "efficientformer_l1", "efficientformerv2_s0", "efficientvit_m0"]


@pytest.mark.parametrize("name", FAMILIES)
def test_timms_attention_biases(name: str) -> None:
    module, fresh = (timm.create_model(name, num_classes=3).eval() for _ in range(2))
    images = torch.randn(1, *module.pretrained_cfg["input_size"])
    with torch.inference_mode():
        for parameter in module.parameters():  # some blocks add nothing at first
            if parameter.ndim == 1:
                parameter.add_(torch.rand_like(parameter))
        module(images)
        for path, parameter in module.named_parameters():
            if path.endswith("attention_biases"):
                parameter.normal_()
        fresh.load_state_dict(module.state_dict())
        expected = fresh.forward_features(images)
        assert not torch.allclose(module.forward_features(images), expected, rtol=1e-2), (
            "timm keeps them: without that no test is needed"
        )
        drop_eval_caches(module)
        torch.testing.assert_close(module.forward_features(images), expected)
