"""Which phases are compiled, on a pretended GPU whose figures are made for hand-computed expectations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Compose, draw_pictures
from tiny_runs import NAMES, fresh_network, resumed, subfolder

from ftexp.errors import ConfigError
from ftexp.finetune.phases import Phase, plan_phases
from ftexp.machine.device_kinds import KINDS, CompileCost
from ftexp.machine.distributed import ONE_PROCESS, Ranks
from ftexp.machine.runtime import prepare_runtime
from ftexp.preparation.prepare import prepare
from ftexp.training.compile_choice import choose_compiled

# 44 images in batches of 8 are 6 steps an epoch.
SETTINGS = ("train.batch_size=8", "runtime.device=cpu", "stage.gate=off")
# A step of 8 images saves 0.5 s. All blocks: (2 s + 6 s) / 0.5 s = 16 steps; one of two: (2 + 3) / 0.25 = 20; two that
# run: (2 + 2) / (1 / 6) = 24.
COST = CompileCost(fixed_seconds=2, seconds=6, saved_seconds=0.0625)


@pytest.fixture(autouse=True)
def gpu_with_round_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "cuda", replace(KINDS["cuda"], compiling=COST))


def chosen(
    configure: Compose, *settings: str, device: str = "cuda", begun: list[str] | None = None, solved: bool = False
) -> list[str]:
    config, network = configure(*SETTINGS, *settings), fresh_network()
    runtime = replace(prepare_runtime(config.runtime), device=torch.device(device))
    phases: list[Phase] = [replace(phase, solved=solved) for phase in plan_phases(config, NAMES, network)]
    marked = choose_compiled(config, phases, network, 44, runtime, begun)
    assert [replace(phase, compiled=False) for phase in marked] == phases
    return [phase.name for phase in marked if phase.compiled]


@pytest.mark.parametrize(
    ("settings", "compiled", "said"),
    [
        (("stage=full", "stage.epochs=2"), [], "off in full: it saves time from 16 steps on if 2 of 2 blocks are "),
        (
            ("stage=full", "stage.epochs=3"),
            ["full"],
            "on in full: it saves time from 16 steps on if 2 of 2 blocks are ",
        ),
        (("stage=full", "stage.epochs=3", "train.accumulate=2"), ["full"], "there are 18 (runtime.compile=auto)"),
        (("stage=full", "stage.epochs=4", "train.batch_size=16"), ["full"], "it saves time from 8 steps on if 2 of 2"),
        (("stage=full", "stage.epochs=2", "train.batch_size=16"), [], "blocks are trained, and there are 6 (runtime"),
        (("stage=partial", "stage.epochs=3"), [], "off in partial: it saves time from 20 steps on if 1 of 2 blocks "),
        (("stage=partial", "stage.epochs=4"), ["partial"], "trained, and there are 24 (runtime.compile=auto)"),
        (("stage=head", "stage.epochs=10000"), [], "off in head: a head on cached activations is too small to gain"),
        (
            ("stage=head", "stage.epochs=3", "runtime.cache=off"),
            [],
            "24 steps on if 0 of 2 blocks are trained and 2 mo",
        ),
        (("stage=head", "stage.epochs=4", "runtime.cache=off"), ["head"], "on in head: it saves time from 24 steps "),
        (("stage=head", "stage.epochs=4", "augment.mixup=0.2"), ["head"], "on in head: it saves time from 24 steps "),
        (("stage=full", "stage.epochs=9", "runtime.compile=false"), [], None),
        (("stage=head", "stage.epochs=1", "runtime.compile=true"), ["head"], None),
    ],
)
def test_auto_compiles_where_it_saves_time_and_says_why(
    configure: Compose, caplog: pytest.LogCaptureFixture, settings: tuple[str, ...], compiled: list[str], said: str
) -> None:
    with caplog.at_level("INFO", logger="ftexp.training"):
        assert chosen(configure, *settings) == compiled
    if said is None:
        assert caplog.messages == []
    else:
        (message,) = caplog.messages
        assert message.startswith("compile o")
        assert said in message


@pytest.mark.parametrize(("device", "level"), [("cpu", "DEBUG"), ("mps", "INFO")])
def test_other_devices_compile_only_if_asked(
    configure: Compose, caplog: pytest.LogCaptureFixture, device: str, level: str
) -> None:
    """A run on the CPU, where nobody expects it, is not told so each time."""
    with caplog.at_level("DEBUG", logger="ftexp.training"):
        assert chosen(configure, "stage=staged", device=device, begun=["all"]) == []
    (record,) = caplog.records
    assert record.getMessage() == f"compile off: {KINDS[device].compiling} (runtime.compile=auto)"
    assert record.levelname == level
    assert chosen(configure, "stage=staged", "runtime.compile=true", device=device) == ["head", "last", "all"]


def test_each_phase_of_a_stage_is_chosen_by_itself(configure: Compose) -> None:
    assert chosen(configure, "stage=staged", "stage.epochs=3") == ["all"]
    assert chosen(configure, "stage=staged", "stage.epochs=4") == ["last", "all"]


def test_a_resumed_run_goes_on_as_it_began_unless_the_user_asks_for_something_else(
    configure: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="ftexp.training"):
        assert chosen(configure, "stage=full", "stage.epochs=9", begun=[]) == []
        assert chosen(configure, "stage=full", "stage.epochs=1", begun=["full"]) == ["full"]
    assert caplog.messages == [
        f"compile as the run began: {what} (runtime.compile=auto)" for what in ("no phase", "full")
    ]
    assert chosen(configure, "stage=full", "stage.epochs=1", "runtime.compile=false", begun=["full"]) == []
    assert chosen(configure, "stage=full", "stage.epochs=1", "runtime.compile=true", begun=[]) == ["full"]


def test_run_json_names_the_compiled_phases_and_a_resumed_run_keeps_them(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_pictures(tmp_path / "pictures")
    images = "data=imagefolder", "data.root=pictures", "data.image_size=32", "audit.on_leak=off", "tracking=none"
    network = "model=timm", "model.name=test_vit", "model.weights=null"
    config = configure(*images, *network, "stage=full", "stage.epochs=1", "train.batch_size=1", "runtime.device=cpu")
    for steps_to_win, compiled in ((1, ["full"]), (10**6, [])):
        folder = subfolder(tmp_path, str(steps_to_win))
        monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], compiling=CompileCost(steps_to_win, 0, 1)))
        prepare(config, folder, ONE_PROCESS, score_test=False).identity(None).write(folder)
        facts = json.loads((folder / "run.json").read_text())
        assert (facts["compiled"], facts["engine"]["compile"]) == (compiled, bool(compiled))
        changed = CompileCost(10**6 if compiled else 1, 0, 1)
        monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], compiling=changed, channels_last_from=10**6))
        again = prepare(resumed(config, folder), folder, ONE_PROCESS, score_test=False)
        assert [phase.name for phase in again.settled.phases if phase.compiled] == compiled
        assert again.runtime.memory_format == torch.channels_last
        monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], channels_last_from=0))


def test_a_solved_head_has_no_steps_to_compile(configure: Compose, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="ftexp.training"):
        assert chosen(configure, "stage=head", "runtime.compile=true", solved=True) == []
        assert chosen(configure, "stage=head", "runtime.cache=off", "stage.epochs=99", solved=True) == []
        assert chosen(configure, "stage=head", device="cpu", solved=True) == []
    assert caplog.messages == []


def test_equal_shares_of_larger_networks_pay_back_after_equally_many_steps() -> None:
    assert [COST.least_steps(share, 8) for share in (1, 1 / 2, 1 / 4, 1 / 8)] == [16, 20, 28, 44]


def test_synchronised_statistics_are_not_compiled(configure: Compose, caplog: pytest.LogCaptureFixture) -> None:
    """Of two processes, with BatchNorm that takes statistics in its blocks: a head on frozen blocks has none."""

    def of_two(*settings: str, begun: list[str] | None = None) -> list[str]:
        config, network = configure(*SETTINGS, *settings), fresh_network()
        runtime = replace(prepare_runtime(config.runtime), device=torch.device("cuda"), ranks=Ranks(0, 2))
        marked = choose_compiled(config, plan_phases(config, NAMES, network), network, 44, runtime, begun)
        return [phase.name for phase in marked if phase.compiled]

    statistics = ("stage=full", "stage.epochs=9", "bn_policy=train")
    with caplog.at_level("INFO", logger="ftexp.training"):
        assert of_two(*statistics) == []
    assert caplog.messages == ["compile off in full: torch does not compile SyncBatchNorm (runtime.compile=auto)"]
    with pytest.raises(ConfigError, match=r"runtime\.compile=true: torch does not compile SyncBatchNorm, which full"):
        of_two(*statistics, "runtime.compile=true")
    caplog.clear()
    with caplog.at_level("INFO", logger="ftexp.training"):
        assert of_two(*statistics, begun=["full"]) == [], "a run that one process began"
    assert caplog.messages == [
        "compile as the run began: no phase (runtime.compile=auto)",
        "compile off in full: torch does not compile SyncBatchNorm (runtime.compile=auto)",
    ]
    assert of_two("stage=full", "stage.epochs=6", "bn_policy=eval") == ["full"]
    assert of_two("stage=full", "stage.epochs=5", "bn_policy=eval") == [], "4 images a step save half: from 32 steps on"
    assert of_two("stage=head", "stage.epochs=1", "bn_policy=train", "runtime.compile=true") == ["head"]
    assert chosen(configure, *statistics) == ["full"], "one process has no SyncBatchNorm"
