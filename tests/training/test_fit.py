"""Whole phases on a tiny network: what is saved, what is repeatable, what the cache may not change."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Compose, TinyNet
from tiny_runs import CPU, SMALL, colours, curve, fit, fresh_network, subfolder
from torch.nn import functional as F

from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_ledger import TestLedger
from ftexp.data.splitting.test_split import TestSplit
from ftexp.errors import ConfigError, DivergedError
from ftexp.evaluation.gate import Verdict
from ftexp.evaluation.scores import Scores
from ftexp.finetune.schedules import Schedule, Span
from ftexp.machine.runtime import prepare_runtime
from ftexp.report.recorder import Recorder
from ftexp.run import score_test_split
from ftexp.training import fit as fit_module
from ftexp.training import phase_end, phase_loop
from ftexp.training.checkpoints.checkpoint import load_checkpoint, restore_weights
from ftexp.training.compilation import CompiledForward
from ftexp.training.inputs.batches import Forward
from ftexp.training.inputs.input_source import InputSource
from ftexp.training.loop import evaluate
from ftexp.training.step import Step

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def splits() -> Splits:
    return Splits(colours(44, seed=1), colours(21, seed=2), TestSplit(colours(10, seed=3)), ("b", "g", "r", "x"))


def recording(spans: list[Span], original: Callable[..., None]) -> Callable[..., None]:
    def init(schedule: Schedule, config: Any, optimizer: Any, span: Span) -> None:
        spans.append(span)
        original(schedule, config, optimizer, span)

    return init


@pytest.mark.parametrize("stage", ["head", "partial", "full"])
def test_it_learns_and_the_history_says_how(configure: Compose, splits: Splits, tmp_path: Path, stage: str) -> None:
    result = fit(configure(*SMALL, f"stage={stage}", "optimizer.head_lr=0.1"), splits, tmp_path)
    assert [record.epoch for record in result.history] == [1, 2, 3]
    assert result.history[-1].train_loss < result.history[0].train_loss
    assert result.history[0].best
    assert (result.history[0].lr_backbone is None) == (stage == "head")


def test_two_runs_of_one_seed_are_the_same_and_of_two_seeds_differ(
    configure: Compose, splits: Splits, tmp_path: Path
) -> None:
    first, second, other = (
        fit(configure(*SMALL, f"runtime.seed={seed}", "augment=light"), splits, subfolder(tmp_path, str(i)))
        for i, seed in enumerate([1, 1, 2])
    )
    assert curve(first) == curve(second)
    assert curve(first) != curve(other)


@pytest.mark.parametrize(
    "stage", ["head", "partial", "norms stage.last_blocks=1", "lora stage.rank=1 stage.last_blocks=1"]
)
def test_the_cached_prefix_gives_the_same_curve_to_the_bit(
    configure: Compose, splits: Splits, tmp_path: Path, stage: str
) -> None:
    cached, plain = (
        fit(configure(*SMALL, *f"stage={stage}".split(), f"runtime.cache={cache}"), splits, subfolder(tmp_path, cache))
        for cache in ("memory", "off")
    )
    assert curve(cached) == curve(plain)
    weights = [result.network.module.state_dict() for result in (cached, plain)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_of_a_run_that_trains_biases_only_those_and_the_head_differ_from_the_start(
    configure: Compose, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="ftexp"):
        result = fit(configure(*SMALL, "stage=bias", "train.ema=0.9"), splits, tmp_path)
    before, after = fresh_network().module.state_dict(), result.network.module.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"stem.1.bias", "body.0.bias", "body.1.bias", "fc.weight", "fc.bias"}
    assert "cache   off: biases of the first block, stem, are trainable" in caplog.messages
    assert result.history[-1].train_loss < result.history[0].train_loss


def test_what_cannot_be_cached_says_why(
    configure: Compose, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="ftexp"):
        fit(configure(*SMALL, "augment=light", "augment.views=inf"), splits, tmp_path)
    assert "cache   off: augmentation makes new images in every epoch (augment.views=inf)" in caplog.messages
    caplog.clear()
    with caplog.at_level("INFO", logger="ftexp"):
        fit(configure(*SMALL, "runtime.cache_gib=1e-6"), splits, tmp_path)
    assert any("GiB more (runtime.cache_gib)" in message for message in caplog.messages)


@pytest.mark.parametrize("stage", [["stage=partial"], ["stage=lora", "stage.rank=2", "train.ema=0.5"]], ids=" ".join)
def test_the_best_checkpoint_reproduces_the_logged_score_exactly(
    configure: Compose, splits: Splits, tmp_path: Path, stage: list[str]
) -> None:
    config = configure(*SMALL, *stage, "optimizer.head_lr=0.05", "runtime.cache=off", "train.metric=macro_f1")
    result = fit(config, splits, tmp_path)
    assert result.best is not None
    content = load_checkpoint(result.best.checkpoint)
    assert content["epoch"] == result.best.record.epoch
    assert content["metric"] == "macro_f1"
    assert content["value"] == result.best.record.val["macro_f1"]
    assert content["class_to_idx"] == {"b": 0, "g": 1, "r": 2, "x": 3}
    assert content["model_name"] == "tiny"
    assert content["preprocessing"]["image_size"] == 8
    assert content["config"]["train"]["metric"] == "macro_f1"
    assert set(content["model"]) == set(TinyNet().state_dict())

    network = fresh_network()
    runtime = prepare_runtime(config.runtime)
    restore_weights(network, content["model"], result.best.checkpoint)
    runtime.place(network.module)
    network.module.eval()
    with InputSource(config, network, splits, runtime) as source:
        scores = evaluate(network.module, source.for_scoring(splits.val), 4, runtime)
    logged = result.best.record
    assert (scores.loss, scores.metrics(logged.val)) == (logged.val_loss, logged.val)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "log_loss", "auroc"])
def test_the_metric_that_is_asked_for_decides(configure: Compose, splits: Splits, tmp_path: Path, metric: str) -> None:
    settings = ("stage=gradual", "stage.gate=significant", f"train.metric={metric}", "optimizer.head_lr=0.1")
    result = fit(configure(*CPU, "train.batch_size=8", "stage.epochs=2", *settings), splits, tmp_path)
    assert result.best is not None
    kept = [record.val[metric] for record in result.history if record.phase == result.best.record.phase]
    assert result.best.record.val[metric] == (min(kept) if metric == "log_loss" else max(kept))
    assert result.best.record.val["log_loss" if metric == "log_loss" else "accuracy"] != 0
    content = load_checkpoint(result.best.checkpoint)
    assert (content["metric"], content["value"]) == (metric, result.best.record.val[metric])
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open(newline="")))
    assert [float(row[f"val_{metric}"]) for row in rows] == [record.val[metric] for record in result.history]


@pytest.mark.parametrize(
    ("on_dropped", "expected", "verdicts"),
    [
        ("stop", ["head", "last"], ["kept", "dropped"]),
        ("continue", ["head", "last", "all"], ["kept", *2 * ["dropped"]]),
    ],
)
def test_after_a_dropped_phase_the_stage_ends_or_goes_on_from_the_weights_before_it(
    configure: Compose,
    splits: Splits,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    on_dropped: str,
    expected: list[str],
    verdicts: list[str],
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(fit_module, "judge", lambda *_: Verdict(False, 0.5, 0.5, 0, 0, None))
    rates = ("stage.phases.1.lr_factor=10", "stage.phases.2.lr_factor=1e-9", "bn_policy=eval")
    settings = (*SMALL, "stage=staged", "stage.epochs=1", *rates, f"stage.on_dropped={on_dropped}")
    result = fit(configure(*settings), splits, tmp_path)
    assert [record.phase for record in result.history] == expected
    assert [entry["verdict"] for entry in result.report.state()["phases"]] == verdicts
    losses = {record.phase: record.val_loss for record in result.history}
    assert abs(losses["last"] - losses["head"]) > 1e-3
    assert losses.get("all", losses["head"]) == pytest.approx(losses["head"], abs=1e-6)
    assert ("gate    all not begun (stage.on_dropped=stop)" in caplog.text) == (on_dropped == "stop")


def test_phases_that_the_gate_could_not_keep_are_not_begun(
    configure: Compose, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of three validation images at most three are wrong, and even three newly right have p = 1 / 8."""
    caplog.set_level("INFO")
    settings = (*SMALL, "stage=staged", "stage.gate=significant", "optimizer.head_lr=1e-12")
    result = fit(configure(*settings), replace(splits, val=colours(3, seed=2)), tmp_path)
    assert {record.phase for record in result.history} == {"head"}
    assert result.best is not None
    num_wrong = 3 - result.best.scores.num_correct
    first, *others = result.report.state()["phases"]
    assert (first["name"], first["verdict"]) == ("head", "kept")
    gate = {"kept": False, "before": (3 - num_wrong) / 3, "after": 1.0, "gained": num_wrong, "lost": 0}
    skipped = {"epochs": 0, "verdict": "skipped", "best_case": {**gate, "p_value": 0.5**num_wrong, "min_errors": None}}
    assert others == [{"name": name, **skipped} for name in ("last", "all")]
    assert f"gate    last, all skipped: {num_wrong} of 3 images are still wrong" in caplog.text
    assert "frozen" not in caplog.text.split("gate    last")[1]  # no table of the skipped phase's blocks
    best, weights = load_checkpoint(result.best.checkpoint)["model"], result.network.module.state_dict()
    assert all(torch.equal(best[name], weights[name]) for name in best)


def test_a_long_phase_says_how_long_it_takes(
    configure: Compose,
    splits: Splits,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(phase_end, "LONG_SECONDS", 0.0)
    caplog.set_level("INFO")
    fit(configure(*SMALL, "stage=head"), splits, tmp_path)
    told = [message for message in caplog.messages if message.startswith("time ")]
    assert told == ["time    head: 1 more epoch takes about 0 minutes; train.max_minutes sets a limit"]


def test_the_best_is_the_first_of_equals(configure: Compose, splits: Splits, tmp_path: Path) -> None:
    """A rate so small that no prediction changes: every epoch ties, the first one stays the best."""
    result = fit(configure(*SMALL, "stage=head", "optimizer.head_lr=1e-12"), splits, tmp_path)
    assert [record.best for record in result.history] == [True, False, False]
    assert load_checkpoint(tmp_path / "checkpoints" / "best.pt")["epoch"] == 1
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt")["epoch"] == 3


def test_a_loss_that_leaves_the_numbers_is_a_named_error(configure: Compose, splits: Splits, tmp_path: Path) -> None:
    config = configure(*SMALL, "stage=partial", "optimizer=sgd", "optimizer.head_lr=1e30", "train.clip_norm=null")
    with pytest.raises(DivergedError, match=r"loss.* is not finite .*[Ll]ower optimizer\.head_lr"):
        fit(config, splits, tmp_path)


def test_clipping_bounds_the_update_and_reports_the_norm_before(
    configure: Compose, splits: Splits, tmp_path: Path
) -> None:
    """With plain SGD the step's length is rate x clipped norm."""
    sgd = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.weight_decay=0")
    one_step = ("stage=head", "stage.epochs=1", "train.batch_size=44", "scheduler=constant", "optimizer.head_lr=1")
    start = fresh_network().module.state_dict()
    result = fit(configure(*SMALL, *sgd, *one_step, "train.clip_norm=0.01"), splits, tmp_path)
    end = result.network.module.state_dict()
    length = math.sqrt(sum((end[name] - start[name]).square().sum().item() for name in ("fc.weight", "fc.bias")))
    assert length == pytest.approx(0.01, rel=1e-3)
    assert result.history[0].grad_norm > 0.05


def first(num_samples: int, splits: Splits) -> Splits:
    return Splits(splits.train[:num_samples], splits.val, splits.test, splits.classes)


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each update that is made from here on."""
    made: list[int] = []
    pending: list[int] = []
    backward, update = Step.backward, Step.update

    def counted(step: Step, inputs: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        pending.append(len(inputs))
        return backward(step, inputs, *args, **kwargs)

    def ended(step: Step) -> torch.Tensor:
        made.append(sum(pending))
        pending.clear()
        return update(step)

    monkeypatch.setattr(Step, "backward", counted)
    monkeypatch.setattr(Step, "update", ended)
    return made


@pytest.mark.parametrize(
    ("num_samples", "policy", "expected"), [(9, "train", [8]), (17, "eval", [8, 8, 1]), (10, "train", [8, 2])]
)
def test_a_last_batch_of_one_is_left_out_only_where_batch_norm_takes_statistics(
    configure: Compose,
    splits: Splits,
    tmp_path: Path,
    updates: list[int],
    caplog: pytest.LogCaptureFixture,
    num_samples: int,
    policy: str,
    expected: list[int],
) -> None:
    with caplog.at_level("INFO", logger="ftexp"):
        config = configure(*SMALL, "stage=full", "stage.epochs=1", f"bn_policy={policy}")
        fit(config, first(num_samples, splits), tmp_path)
    assert updates == expected
    said = [message for message in caplog.messages if "leaves out" in message]
    assert said == [
        f"data    full: an epoch leaves out 1 of the {num_samples} training images, different ones each time, "
        "because BatchNorm needs at least 2 images in a batch (train.batch_size, bn_policy)"
    ] * (sum(expected) < num_samples)


def test_plan_schedule_and_loader_agree_on_the_updates_of_every_phase(
    configure: Compose, splits: Splits, tmp_path: Path, updates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """33 images in batches of 8, two in an update: the head, without BatchNorm, trains on the last one, too."""
    planned: list[Span] = []
    monkeypatch.setattr(Recorder, "plan", lambda self, phases, network, spans: planned.extend(spans))
    schedules: list[Span] = []
    monkeypatch.setattr(Schedule, "__init__", recording(schedules, Schedule.__init__))
    settings = ("stage=staged", "stage.gate=off", "bn_policy=train", "train.accumulate=2", "stage.epochs=1")
    config = configure(*SMALL, *settings)
    result = fit(config, first(33, splits), tmp_path)
    assert [record.phase for record in result.history] == ["head", "last", "all"]
    assert updates == [16, 16, 1] + 2 * [16, 16]
    assert planned == schedules == [Span(1, 3, 33), Span(1, 2, 33), Span(1, 2, 33)]


def test_compiled_training_learns_from_the_short_last_batch_as_eager_training_does(
    configure: Compose, splits: Splits, tmp_path: Path, updates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftexp.training.compilation.CompiledForward", partial(CompiledForward, backend="eager"))
    settings = (*SMALL, "stage=full", "stage.epochs=2", "train.batch_size=16", "bn_policy=train")
    plain, compiled = (
        fit(configure(*settings, f"runtime.compile={on}"), first(25, splits), subfolder(tmp_path, on))
        for on in ("false", "true")
    )
    assert updates == [16, 9] * 4
    assert curve(compiled) == curve(plain)


def test_batches_of_one_image_are_refused_where_batch_norm_takes_statistics(
    configure: Compose, splits: Splits, tmp_path: Path
) -> None:
    one = (*SMALL, "train.batch_size=1", "train.accumulate=4", "stage.epochs=1")
    with pytest.raises(ConfigError, match=r"train\.batch_size=1 is too small.*train\.batch_size=2, or bn_policy=eval"):
        fit(configure(*one, "stage=full", "bn_policy=train"), splits, tmp_path)
    for number, settings in enumerate((("stage=head", "bn_policy=train"), ("stage=full", "bn_policy=eval"))):
        fit(configure(*one, *settings), first(6, splits), subfolder(tmp_path, str(number)))


def test_patience_ends_a_phase_early_and_says_so(
    configure: Compose, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A rate so small that every epoch ties with the first: two more are waited for, the rates stay as planned."""
    still = ("stage=head", "optimizer.head_lr=1e-12", "stage.epochs=6", "scheduler.interval=epoch")
    with caplog.at_level("INFO", logger="ftexp"):
        patient = fit(configure(*SMALL, *still, "train.patience=2"), splits, subfolder(tmp_path, "early"))
    assert len(patient.history) == 3
    line = "early   head stops after 3 of 6 epochs: no better accuracy in the last 2 (patience)"
    assert line in caplog.messages
    caplog.clear()
    with caplog.at_level("INFO", logger="ftexp"):
        other = fit(configure(*SMALL, *still, "train.patience=5"), splits, subfolder(tmp_path, "late"))
    assert not any(message.startswith("early") for message in caplog.messages)  # it ran to its end
    assert [r.lr_head for r in patient.history] == [r.lr_head for r in other.history[:3]]


def test_a_phase_has_a_patience_of_its_own_where_there_is_none_for_all(
    configure: Compose, splits: Splits, tmp_path: Path
) -> None:
    still = ("stage=staged", "stage.gate=off", "optimizer.head_lr=1e-12", "optimizer.backbone_lr=1e-12")
    own = (*SMALL, *still, "stage.epochs=3", "stage.phases.1.patience=1")
    phases = [record.phase for record in fit(configure(*own), splits, subfolder(tmp_path, "own")).history]
    assert phases == ["head"] * 3 + ["last"] * 2 + ["all"] * 3
    result = fit(configure(*own, "train.patience=2"), splits, subfolder(tmp_path, "all"))
    assert [record.phase for record in result.history] == ["head"] * 3 + ["last"] * 3 + ["all"] * 3
    with pytest.raises(ConfigError, match=r"patience=0 is not allowed: it must be at least 1, or null"):
        configure(*own, "stage.phases.1.patience=0")


def test_a_phase_starts_with_new_patience(configure: Compose, splits: Splits, tmp_path: Path) -> None:
    still = ("stage=staged", "stage.gate=off", "optimizer.head_lr=1e-12", "optimizer.backbone_lr=1e-12")
    result = fit(configure(*SMALL, *still, "train.patience=1"), splits, tmp_path)
    assert [record.phase for record in result.history] == ["head", "head", "last", "last", "all", "all"]


def test_the_schedule_counts_updates_not_batches(configure: Compose, splits: Splits, tmp_path: Path) -> None:
    """44 images in batches of 8 are 6 batches and, 4 at a time, 2 updates an epoch: cosine over 4 in all."""
    config = configure(*SMALL, "stage=head", "stage.epochs=2", "train.accumulate=4", "scheduler.warmup=0")
    rates = [record.lr_head for record in fit(config, splits, tmp_path).history]
    assert rates == pytest.approx([1e-3, 0.5e-3])


@pytest.mark.parametrize("augment", ["augment=strong", "augment.mixup=0.4"])
def test_runs_with_mixed_images_repeat_and_are_not_cached(
    configure: Compose, splits: Splits, tmp_path: Path, augment: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="ftexp"):
        first, second = (
            fit(configure(*SMALL, "stage=partial", augment), splits, subfolder(tmp_path, name)) for name in "ab"
        )
    assert curve(first) == curve(second)
    assert caplog.text.count("cache   off: mixup and CutMix mix the images of a batch before the frozen blocks") == 2


@pytest.mark.parametrize("cache", ["memory", "off"])
def test_the_average_of_weights_is_what_is_scored_and_saved(
    configure: Compose, splits: Splits, tmp_path: Path, cache: str
) -> None:
    """One epoch of one update from w0 to w1: the average is 2/11 of w0 and 9/11 of w1."""
    one = ("stage=head", "stage.epochs=1", "train.batch_size=44", "optimizer.head_lr=0.1", f"runtime.cache={cache}")
    plain, averaged = (
        fit(configure(*SMALL, *one, f"train.ema={ema}"), splits, subfolder(tmp_path, str(ema)))
        for ema in ("null", 0.999)
    )
    start = fresh_network().module.state_dict()["fc.weight"]
    moved, average = (
        load_checkpoint(r.checkpoints.folder / "best.pt")["model"]["fc.weight"] for r in (plain, averaged)
    )
    torch.testing.assert_close(average, start * 2 / 11 + moved * 9 / 11)
    assert averaged.history[0].train_loss == plain.history[0].train_loss
    assert averaged.history[0].val_loss != plain.history[0].val_loss


def test_averaged_weights_train_the_same_curve_on_cached_activations(
    configure: Compose, splits: Splits, tmp_path: Path
) -> None:
    cached, plain = (
        fit(configure(*SMALL, "train.ema=0.9", f"runtime.cache={cache}"), splits, subfolder(tmp_path, cache))
        for cache in ("memory", "off")
    )
    assert curve(cached) == curve(plain)


def test_l2_sp_keeps_the_backbone_nearer_to_its_starting_weights(
    configure: Compose, splits: Splits, tmp_path: Path
) -> None:
    sgd = ("stage=full", "optimizer=sgd", "optimizer.backbone_lr=0.05", "optimizer.weight_decay=0")
    start = fresh_network().module.state_dict()["body.0.weight"]
    away = []
    for strength in ("null", "1.0", "10.0"):
        result = fit(configure(*SMALL, *sgd, f"train.l2_sp={strength}"), splits, subfolder(tmp_path, strength))
        last = load_checkpoint(result.checkpoints.folder / "last.pt")["model"]["body.0.weight"]
        away.append((last - start).norm().item())
    assert away == sorted(away, reverse=True)
    assert away[2] < 0.7 * away[0]


def test_the_wise_ft_average_that_validates_best_is_saved(
    configure: Compose, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wild = ("stage=full", "stage.epochs=1", "optimizer=sgd", "optimizer.backbone_lr=0.5", "train.clip_norm=null")
    with caplog.at_level("INFO", logger="ftexp"):
        result = fit(configure(*SMALL, *wild, "train.wise_ft=[0.1,0.4]"), splits, tmp_path)
    assert result.best is not None
    assert result.best.scores.accuracy >= result.history[0].val["accuracy"]
    saved, last = (load_checkpoint(result.checkpoints.folder / name)["model"] for name in ("best.pt", "last.pt"))
    start, alpha = fresh_network().module.state_dict(), result.best.alpha
    for name in ("stem.0.weight", "body.1.running_mean"):
        torch.testing.assert_close(saved[name], torch.lerp(start[name], last[name], alpha))
    assert torch.equal(saved["fc.weight"], last["fc.weight"])
    (told,) = (line for line in caplog.messages if line.startswith("wise-ft"))
    shares = f"{alpha:g} x the trained and {1 - alpha:g} x the starting weights"
    assert told.endswith(f" -> {result.best.scores.accuracy:.4f} with {shares}")


def test_a_run_says_that_no_average_with_the_start_is_better(
    configure: Compose, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="ftexp"):
        result = fit(configure(*SMALL, "stage=full", "train.wise_ft=[0]"), splits, tmp_path)
    assert result.best is not None
    assert result.best.alpha == 1
    said = f"wise-ft no average with the starting weights is better than accuracy {result.best.scores.accuracy:.4f}"
    assert said in caplog.messages


def planted_validation_loss(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The first so many validations meet outputs that are NaN."""
    original, left = phase_loop.evaluate, [times]

    def evaluated(forward: Forward, *rest: Any, **options: Any) -> Scores:
        left[0] -= 1
        broken = left[0] >= 0
        return original((lambda inputs: forward(inputs) * math.nan) if broken else forward, *rest, **options)

    monkeypatch.setattr(phase_loop, "evaluate", evaluated)


def test_a_validation_loss_that_is_not_finite_undoes_the_epoch(
    configure: Compose,
    splits: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    planted_validation_loss(monkeypatch, 1)
    result = fit(configure(*SMALL, "stage=partial", "scheduler=constant", "train.ema=0.9"), splits, tmp_path)
    (warning,) = [message for message in caplog.messages if message.startswith("nan ")]
    assert "The validation loss is not finite (nan)" in warning
    assert "21 of 21 images (all images)" in warning
    assert [record.epoch for record in result.history] == [1, 2, 3]
    assert [record.lr_head for record in result.history] == pytest.approx([0.5e-3] * 3), "at half the rates"
    assert all(math.isfinite(record.val_loss) for record in result.history)


def test_a_validation_loss_that_is_never_finite_fails_the_run(
    configure: Compose, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted_validation_loss(monkeypatch, 99)
    with pytest.raises(DivergedError, match=r"The validation loss is not finite \(nan\)"):
        fit(configure(*SMALL), splits, tmp_path)
    assert not (tmp_path / "checkpoints" / "best.pt").exists()


def test_the_test_split_is_scored_with_the_best_weights(configure: Compose, splits: Splits, tmp_path: Path) -> None:
    """At a tiny rate all epochs tie, so the first is the best, and the last has other weights."""
    config = configure(*SMALL, "stage=full", "optimizer.head_lr=1e-5", "optimizer.backbone_lr=1e-5")
    result = fit(config, splits, tmp_path)
    assert [record.best for record in result.history] == [True, False, False]
    best, last = (load_checkpoint(tmp_path / "checkpoints" / name)["model"] for name in ("best.pt", "last.pt"))
    weights = result.network.module.state_dict()
    assert all(torch.equal(weights[name], best[name]) for name in weights)
    assert not torch.equal(best["fc.weight"], last["fc.weight"])

    result.network.module.train()  # as in a run that is resumed after its last epoch
    scores, uses = score_test_split(result, TestLedger(tmp_path / "ledger.sqlite"), tmp_path)
    assert uses == 1
    network, runtime = fresh_network(), prepare_runtime(config.runtime)
    network.module.load_state_dict(best)
    runtime.place(network.module.eval())
    with InputSource(config, network, splits, runtime) as source:
        expected = evaluate(network.module, source.for_scoring(colours(10, seed=3)), 4, runtime)
    assert scores.loss == expected.loss


@pytest.mark.parametrize("cache", ["memory", "off"])
def test_class_weights_reach_the_loss(configure: Compose, splits: Splits, tmp_path: Path, cache: str) -> None:
    """One batch, so that the first epoch's loss is that of the weights at the start."""
    few = Splits(
        [s for s in splits.train if s.label != "r" or int(s.path[-3:]) < 8], splits.val, splits.test, splits.classes
    )
    one = (
        "stage=head",
        "stage.epochs=1",
        "train.batch_size=64",
        "loss.class_weights=balanced",
        f"runtime.cache={cache}",
    )
    config = configure(*SMALL, *one)
    reported = fit(config, few, tmp_path).history[0].train_loss
    network, runtime = fresh_network(), prepare_runtime(config.runtime)
    runtime.place(network.module.eval())
    counts = torch.tensor([11, 11, 2, 11])
    with InputSource(config, network, few, runtime) as source, torch.no_grad():
        ((logits, labels),) = [(network.module(images), y) for images, y in source.for_scoring(few.train).epoch(0)]
    assert labels.bincount().tolist() == counts.tolist()
    expected = F.cross_entropy(logits, labels, 1 / counts, label_smoothing=0.1)
    assert reported == pytest.approx(expected.item(), rel=1e-5)
    assert reported != pytest.approx(F.cross_entropy(logits, labels, label_smoothing=0.1).item(), rel=1e-2)


@pytest.mark.parametrize(("l2_sp", "backbone"), [("null", {0.0, 0.1}), ("0.01", {0.0})])
def test_l2_sp_replaces_the_backbones_weight_decay(
    configure: Compose, splits: Splits, tmp_path: Path, l2_sp: str, backbone: set[float]
) -> None:
    config = configure(*SMALL, "stage=full", "stage.epochs=1", "optimizer.weight_decay=0.1", f"train.l2_sp={l2_sp}")
    fit(config, splits, tmp_path)
    groups = load_checkpoint(tmp_path / "checkpoints" / "last.pt")["phase"]["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups if group["block"] != "head"} == backbone
    assert {group["weight_decay"] for group in groups if group["block"] == "head"} == {0.0, 0.1}
