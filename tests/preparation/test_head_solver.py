"""When a head is solved, and what makes ``auto`` take steps."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import pytest
from conftest import CommandLine, Compose, draw_pictures
from tiny_runs import NAMES, fresh_network

from ftexp.errors import ConfigError
from ftexp.finetune.phases import Phase, plan_phases
from ftexp.preparation.head_solver import bytes_to_solve, choose_solver, keep_solvable


def chosen(configure: Compose, *settings: str, overrides: tuple[str, ...] = ()) -> tuple[Phase, ...]:
    config = configure(*settings)
    return choose_solver(config, plan_phases(config, NAMES, fresh_network()), overrides)


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("loss.class_weights=balanced", "loss.label_smoothing=0"),
        ("train.batch_size=64", "train.metric=macro_f1", "data.sampler=balanced"),
        ("head.solver=solved",),
    ],
)
def test_a_head_alone_is_solved(configure: Compose, settings: tuple[str, ...]) -> None:
    (phase,) = chosen(configure, "stage=head", *settings, overrides=settings)
    assert (phase.solved, phase.epochs) == (True, 1)


@pytest.mark.parametrize(
    "setting",
    [
        "stage.epochs=3",
        "optimizer.head_lr=0.01",
        "optimizer.block_lrs={head: 0.1}",
        "optimizer.weight_decay=0.5",
        "scheduler.floor=0.5",
        "train.ema=0.9",
        "train.clip_norm=5.0",
        "train.accumulate=2",
        "train.patience=3",
        "model.drop_rate=0.2",
    ],
)
def test_a_setting_of_steps_makes_auto_take_steps(
    configure: Compose, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (phase,) = chosen(configure, "stage=head", setting)
    assert not phase.solved
    (message,) = caplog.messages
    key = setting.partition("=")[0]
    assert message.startswith(f"head    trained by steps, not solved: {key.replace('block_lrs.head', 'block_lrs')}=")
    with pytest.raises(ConfigError, match=rf"head\.solver=solved is not possible with {key}=.*Remove it, or use"):
        chosen(configure, "stage=head", "head.solver=solved", setting)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (("stage=partial",), "the head is trained by steps"),
        (("stage=head", "head.solver=sgd"), "the head is trained by steps"),
        (("stage=head", "augment=light"), "the head is trained by steps because of random augmentation"),
    ],
)
def test_a_strength_without_a_solved_head_is_refused(
    configure: Compose, settings: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ConfigError, match=rf"head\.strength=0\.1 has no effect: {reason}.*Remove it\."):
        chosen(configure, *settings, "head.strength=0.1")


def test_a_strength_is_of_the_solved_start_too(configure: Compose) -> None:
    (phase,) = chosen(configure, "stage=partial", "head.init=solved", "head.strength=0.1")
    assert not phase.solved


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("optimizer=sgd", "optimizer=sgd"),
        ("scheduler=constant", "scheduler.name=constant"),
        ("loss=focal", "loss=focal"),
        ("augment=light", "random augmentation"),
        ("augment.mixup=0.2", "random augmentation"),
    ],
)
def test_so_does_another_option(
    configure: Compose, setting: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert not chosen(configure, "stage=head", setting)[0].solved
    assert reason in caplog.text


@pytest.mark.parametrize("override", ["optimizer.head_lr=1e-3", "stage.epochs=15", "scheduler=warmup_cosine"])
def test_an_override_counts_even_if_it_gives_the_default(
    configure: Compose, override: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a search over head_lr=1e-3,1e-2, whose trials all have to be of one kind."""
    caplog.set_level(logging.INFO)
    assert not chosen(configure, "stage=head", overrides=("stage=head", override))[0].solved
    assert override in caplog.text


def test_only_a_stage_of_the_head_alone_is_solved_unless_it_is_asked_for(
    configure: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for stage in ("staged", "partial", "full"):
        assert not any(phase.solved for phase in chosen(configure, f"stage={stage}"))
    assert not chosen(configure, "stage=head", "head.solver=sgd")[0].solved
    assert not caplog.messages
    staged = chosen(configure, "stage=staged", "head.solver=solved", "optimizer.head_lr=0.1", "stage.epochs=3")
    assert [(phase.solved, phase.epochs) for phase in staged] == [(True, 1), (False, 3), (False, 3)]
    with pytest.raises(ConfigError, match=r"head\.solver=solved has no effect: no phase has learn=head"):
        chosen(configure, "stage=partial", "head.solver=solved")


def kept(configure: Compose, *settings: str, num_train: int = 100) -> tuple[Phase, ...]:
    config, network = configure(*settings), fresh_network()
    planned = plan_phases(config, NAMES, network)
    return keep_solvable(config, planned, choose_solver(config, planned, ()), network, num_train)


def test_features_that_take_too_much_memory_are_left_to_steps(
    configure: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    assert kept(configure, "stage=head")[0].solved
    caplog.set_level(logging.INFO)
    (phase,) = kept(configure, "stage=head", num_train=10**8)
    assert (phase.solved, phase.epochs) == (False, 15)
    gib = bytes_to_solve(10**8, 6, 4) / 2**30
    assert f"6 features of 100,000,000 images would take {gib:.1f} GiB, and head.max_gib=4 are allowed" in caplog.text
    assert kept(configure, "stage=head", "head.max_gib=1000", num_train=10**8)[0].solved
    for key, other in (("solver", "sgd"), ("init", "random")):
        stage = "head" if key == "solver" else "partial"
        with pytest.raises(ConfigError, match=rf"head\.{key}=solved is not possible: .* Use head\.{key}={other}\."):
            kept(configure, f"stage={stage}", f"head.{key}=solved", num_train=10**8)


def test_20000_images_with_2064_features_of_100_classes_fit_into_the_default() -> None:
    assert bytes_to_solve(20_000, 2_064, 100) < 2 * 2**30


SMALL = (
    *("data=imagefolder", "data.root=pictures", "data.image_size=32", "audit.on_leak=off", "tracking=none"),
    *("model=timm", "model.name=test_efficientnet", "model.weights=null", "runtime.device=cpu", "runtime.workers=0"),
    *("runtime.cache=memory", "train.batch_size=8", "stage=head"),
)


def test_a_solved_run_on_the_command_line(tmp_path: Path, command_line: CommandLine) -> None:
    draw_pictures(tmp_path / "pictures")
    ended = command_line(*SMALL, "hydra.run.dir=run")
    assert ended.returncode == 0, ended.stderr
    assert "solved  the head on 256 features of 14 images: strength" in ended.stdout
    assert "the activations before head were computed once" in ended.stdout
    result = json.loads(Path("run/result.json").read_text())
    (phase,) = result["phases"]
    assert (phase["solver"], phase["epochs"], phase["diagnosis"]["signal"]) == ("solved", 1, "solved")
    assert result["test"]["accuracy"] == 1.0
    assert json.loads(Path("run/run.json").read_text())["head_solver"] == "solved"
    with Path("run/metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]
    with Path("run/param_groups.csv").open(newline="") as file:
        assert {row["lr"] for row in csv.DictReader(file)} <= {"", "-"}
    for name in ("solution.json", "solution.png", "curves.png", "confusion_matrix.png", "checkpoints/best.pt"):
        assert Path("run", name).stat().st_size > 0
    assert not Path("run/plan.png").exists()


@pytest.mark.slow
def test_a_search_over_a_rate_has_trials_of_one_kind(tmp_path: Path, command_line: CommandLine) -> None:
    """One of the rates is the default, and would be solved if it were not searched."""
    draw_pictures(tmp_path / "pictures")
    ended = command_line("-m", *SMALL, "optimizer.head_lr=1e-3,1e-2", "sweep.space={}", "hydra.sweep.dir=search")
    assert ended.returncode == 0, ended.stderr
    kinds = [json.loads(path.read_text())["head_solver"] for path in Path("search").glob("[0-9]*/run.json")]
    assert kinds == ["sgd", "sgd"]
