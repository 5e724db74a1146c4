"""Every option composes; every mistake ends as one message, before torch is imported or data is read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import groupby, zip_longest
from pathlib import Path

import pytest
from compositions import by_hydra_alone, composed
from conftest import CommandLine, Compose
from hydra import compose
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from ftexp.audit.__main__ import main as audit
from ftexp.config import SCHEMA, as_data
from ftexp.config.conf_dir import conf_dir
from ftexp.config.model import ModelConfig
from ftexp.errors import ConfigError
from ftexp.lr_find import main as lr_find
from ftexp.preparation.prepare import plan


def options() -> list[list[str]]:
    """Every option, but for the networks, one of each group at a time: Hydra takes half a second to compose."""
    files = sorted(conf_dir().glob("*/*.yaml"), key=lambda file: file.parent)
    groups = [
        [f"{group.name}={file.stem}" for file in of_group]
        for group, of_group in groupby(files, lambda file: file.parent)
        if group.name not in ("experiment", "model")
    ]
    return [[option for option in together if option] for together in zip_longest(*groups)]


# Options whose needs cannot be told from a missing value.
NEEDS = {"stage=blocks": ["stage.blocks=[stem]"], "stage=patterns": ["stage.patterns=[stem.*,-*]"]}


def missing_key(configure: Compose, overrides: list[str]) -> str | None:
    try:
        configure(*overrides)
    except ConfigError as error:
        if key := re.match(r"(\S+) has no value. Give one", str(error)):
            return key[1]
        raise
    return None


@pytest.mark.usefixtures("configure")
@pytest.mark.parametrize("model", sorted(file.stem for file in conf_dir().glob("model/*.yaml")))
def test_every_network_composes(model: str) -> None:
    """By themselves, in a fifth of the time: networks refer to no other group."""
    composed = compose(f"model/{model}", overrides=["model.name=given"] if model == "timm" else [])
    config = OmegaConf.to_object(composed.model)
    assert isinstance(config, ModelConfig)
    assert config.name


@pytest.mark.parametrize("together", options(), ids=" ".join)
def test_every_option_composes(configure: Compose, together: list[str]) -> None:
    """Options that need a setting of the user's say which; with it they compose too."""
    overrides = [*together, *(key for option in together for key in NEEDS.get(option, []))]
    while missing := missing_key(configure, overrides):
        assert f"{missing}=given" not in overrides
        overrides.append(f"{missing}=given")
    assert configure(*overrides)


def asked(config: DictConfig) -> tuple[object, ...]:
    """The values with their interpolations, and what further keys may be set."""
    types = {name: OmegaConf.get_type(config, name) for name in config}
    return OmegaConf.to_container(config), types, OmegaConf.is_struct(config), OmegaConf.is_readonly(config)


@pytest.mark.parametrize(
    "overrides",
    [
        ["stage=staged", "stage.phases.1.epochs=3", "optimizer=sgd", "optimizer.momentum=0.5"],
        ["optimizer.block_lrs={stage7:1e-3}", "train.wise_ft=[0.3,0.6]", "train.ema=0.9", "train.ema=null"],
        ["data=manifest", "data.file=a b.csv", "+optimizer.block_lrs.stem=1e-5", "tracking=none"],
    ],
)
def test_these_tests_compose_what_hydra_composes(configure: Compose, overrides: list[str]) -> None:
    with by_hydra_alone():
        expected = [compose("config", overrides=overrides, return_hydra_config=full) for full in (False, True)]
    assert composed(overrides) == expected[0]
    for _ in range(2):  # the second one was kept
        remembered = [compose("config", overrides=overrides, return_hydra_config=full) for full in (False, True)]
        assert [asked(config) for config in remembered] == [asked(config) for config in expected]


def test_a_stage_has_defaults_of_the_averages_of_weights(configure: Compose) -> None:
    given = configure("stage=auto").train, configure("stage=partial").train, configure("train.ema=null").train
    assert [(train.ema, train.wise_ft) for train in given] == [
        (0.98, [0.25, 0.5, 0.75]),
        (None, []),
        (None, [0.25, 0.5, 0.75]),
    ]


@pytest.mark.parametrize("experiment", sorted(file.stem for file in conf_dir().glob("experiment/*.yaml")))
def test_every_experiment_composes(configure: Compose, experiment: str) -> None:
    if experiment == "ray":
        pytest.importorskip("ray", reason="Ray is an extra")
    assert configure(f"experiment={experiment}").stage.phases


def test_every_group_of_the_schema_has_options(configure: Compose) -> None:
    groups = {file.parent.name for file in conf_dir().glob("*/*.yaml")}
    assert set(SCHEMA) <= groups


MISTAKES = {
    # Keys and options that do not exist.
    "optimizer.head_lrr=1": "There is no setting optimizer.head_lrr. Did you mean 'optimizer.head_lr'?",
    "+optimizer.head_lrr=1": "There is no setting optimizer.head_lrr. Did you mean 'optimizer.head_lr'?",
    "+optimiser.head_lr=1": "There is no setting optimiser. Did you mean 'optimizer'?",
    "optimiser=adamw": "There is no setting optimiser. Did you mean 'optimizer'?",
    "model=resnet51": "There is no model=resnet51. Did you mean 'resnet",
    "epochs=5": "There is no setting epochs. Did you mean stage.epochs?",
    "+seed=1": "There is no setting seed. Did you mean runtime.seed",
    "train.emma=1": "train.max_minutes. python -m ftexp.settings train explains them.",
    "stage=partal": "staged. python -m ftexp.settings stage explains them.",
    "train=5": "train is a group without options. Set one of its keys: train.KEY=VALUE.",
    "model=best.pt": "For a file of weights add model.weights=best.pt to model=NAME.",
    "model=levit_128s": "For a network in timm write model=timm model.name=levit_128s.",
    "data=my/pictures": "For a folder of images write data=imagefolder data.root=my/pictures.",
    "optimizer=adam": "There is no optimizer=adam. Did you mean 'adamw'?",
    "stage=heads": "There is no stage=heads. Did you mean 'head'?",
    "data.root=photos": "There is no setting data.root. It belongs to data=imagefolder",
    "loss=focus": "There is no loss=focus. Did you mean 'focal'?",
    "loss=focal loss.label_smoothing=0.1": "loss.label_smoothing. It belongs to loss=cross_entropy or loss=bce",
    "loss=bce loss.class_weights=effective": "loss.class_weights. It belongs to loss=cross_entropy",
    "optimizer=lion optimizer.eps=1": "There is no setting optimizer.eps. It belongs to optimizer=adamw or",
    # Settings that had another name.
    "train.loss=focal": "train.loss is called loss now: loss=focal.",
    "+train.label_smoothing=0.2": "train.label_smoothing is called loss.label_smoothing now: "
    "loss.label_smoothing=0.2. It belongs to loss=cross_entropy or loss=bce",
    "train.focal_gamma=1": "train.focal_gamma is called loss.gamma now: loss.gamma=1. It belongs to loss=focal",
    "-m train.class_weights=none,balanced": "train.class_weights is called loss.class_weights now: "
    "loss.class_weights=none,balanced. It belongs to loss=cross_entropy",
    "optimizer.momentum=0.9": "There is no setting optimizer.momentum. It belongs to optimizer=sgd",
    # Wrong types.
    "train.calibrate=maybe": "train.calibrate=maybe is not allowed: it must be true or false.",
    "train.patience=none": "train.patience=none is not allowed: it must be a whole number, or null.",
    "train.clip_norm=big": "train.clip_norm=big is not allowed: it must be a number, or null.",
    "stage.min_errors=1.5": "stage.min_errors=1.5 is not allowed: it must be a whole number.",
    "train.batch_size=1.5": "train.batch_size: Value '1.5' of type 'float' is incompatible",
    "scheduler.interval=batch": "scheduler.interval: Invalid value 'batch', expected one of ['step', 'epoch']",
    # Missing, malformed, contradicting.
    "data=imagefolder": "data.root has no value. Give one, for example data.root=VALUE",
    "~optimizer": "'~optimizer' would remove optimizer, which a run needs. Omit it to use the value in conf/",
    "optimizer": "'optimizer' is not of the form key=value",
}


def test_graphs_are_refused_only_where_code_may_be_compiled(configure: Compose) -> None:
    graphs = ("runtime.compile_mode=reduce-overhead", "train.accumulate=2")
    for harmless in ("runtime.compile=false", "runtime.device=cpu", "runtime.device=mps", "train.accumulate=1"):
        configure(*graphs, harmless)
    configure("runtime.compile_mode=max-autotune-no-cudagraphs", "train.accumulate=2")


@pytest.mark.parametrize(("command", "message"), MISTAKES.items(), ids=list(MISTAKES))
def test_mistakes_end_as_one_message(
    command: str, message: str, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    monkeypatch.setitem(sys.modules, "ftexp.run", None)  # importing it would raise: nothing may get that far
    ended = command_line(*command.split())
    assert ended.returncode == 1
    assert ended.stderr.startswith("ftexp: ")
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


# Settings that do not exist whatever is chosen.
NOWHERE = (
    *("epochs=5", "lr=0.1", "foo.bar.baz=1", "optimiser.lr=1", "experiment.name=x", "num_classes=3"),
    *("stage.epoch=3", "stage.epoch.x=1", "stage.0=1", "train.emma=null", "recipe.foo.x=1", "model.pretrained=true"),
    *("probe.x=1", "stage=head stage.epochs=3 stage.epoch=3", "experiment=slurm runtime.gpu=1", "-m sweep.trials=3"),
)


@pytest.mark.parametrize("command", NOWHERE)
def test_a_setting_that_no_option_has_is_refused_without_composing(
    command: str, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed = command_line(*command.split(), "hydra.searchpath=[]")  # where Hydra looks for options of the user's own
    monkeypatch.setattr("hydra.main", None)  # calling it, which takes a third of a second, would be a TypeError
    ended = command_line(*command.split())
    assert (ended.returncode, ended.stderr) == (composed.returncode, composed.stderr)
    assert ended.stderr.startswith("ftexp: There is no setting ")


@pytest.mark.parametrize("own", ["--config-dir=mine --config-name=mine", "hydra.searchpath=[mine] experiment=mine"])
def test_a_group_of_the_users_own_is_left_to_hydra(own: str, tmp_path: Path, command_line: CommandLine) -> None:
    for name in ("sizes", "experiment"):
        (tmp_path / "mine" / name).mkdir(parents=True)
    (tmp_path / "mine" / "sizes" / "none.yaml").write_text("# @package stage\nepochs: 0\n")
    (tmp_path / "mine" / "mine.yaml").write_text("defaults: [config, sizes: null, _self_]\n")
    (tmp_path / "mine" / "experiment" / "mine.yaml").write_text("# @package _global_\ndefaults: [/sizes: null]\n")
    assert "ftexp: stage.epochs=0 is not allowed" in command_line(*own.split(), "sizes=none").stderr


# Values out of range, references to nothing, contradictions; the errors of the program all come from this check.
VALUES = {
    "optimizer.head_lr=fast": "optimizer.head_lr=fast is not allowed: it must be auto, or above 0",
    "train.metric=f1": "train.metric=f1: there is no such metric. Did you mean 'macro_f1'? Allowed are accuracy, macro",
    "data=imagefolder data.root=${pictures}": "data.root: Interpolation key 'pictures' not found. ${group.key} refers",
    "stage.epochs=${stage.epochs}": "stage.epochs: Recursive interpolation detected. ${group.key} refers to",
    "sweep.objectives=[${nosuch}]": "sweep.objectives[0]: Interpolation key 'nosuch' not found.",
    "stage=head stage.last_blocks=2": "stage.last_blocks=2 has no effect: no phase has learn=last",
    "scheduler=constant scheduler.floor=0.1": "scheduler.floor=0.1 has no effect with scheduler=constant",
    "runtime.compile_mode=reduce-overhead train.accumulate=2": "is not possible with train.accumulate=2: it records "
    "CUDA graphs",
    "runtime.compile=true runtime.compile_mode=max-autotune train.accumulate=8": "the gradients of the batch "
    "before. Use runtime.compile_mode=default or max-autotune-no-cudagraphs, or train.accumulate=1.",
    "optimizer=sgd optimizer.momentum=0": "optimizer.nesterov=true needs optimizer.momentum above 0",
    "optimizer.head_lr=inf": "optimizer.head_lr=inf is not allowed: it must be a finite number.",
    "optimizer.block_lrs={stage7:inf}": "optimizer.block_lrs.stage7=inf is not allowed: it must be a finite number.",
    "stage.epochs=0": "stage.epochs=0 is not allowed: it must be at least 1",
    "stage.epochs=many": "stage.epochs=many is not allowed: it must be at least 1, or auto",
    "augment=auto augment.erasing=some": "augment.erasing=some is not allowed: it must be auto, or a number",
    "augment=auto augment.policy=all": "augment.policy=all is not allowed: it must be auto, none, trivial, rand",
    "augment=auto recipe.augment.all.small=strongest": "recipe.augment.all.small=strongest: there is no such strength.",
    "recipe.time.audit=2": "recipe.time.audit=2.0 is not allowed: it must be from 0 to 1",
    "recipe.budgets.cnn.all.max_epochs=2": "recipe.budgets: min_epochs=8 is not allowed: it must be from 1 to",
    "stage.last_blocks=0": "stage.last_blocks=0 is not allowed: it must be at least 1",
    "optimizer.head_lr=0": "optimizer.head_lr=0 is not allowed: it must be auto, or above 0",
    "optimizer.block_decay=1.5": "optimizer.block_decay=1.5 is not allowed",
    "optimizer.betas=[0.9]": "optimizer.betas=[0.9] is not allowed: it must be two numbers",
    "optimizer=adan optimizer.betas=[0.9,0.9]": "optimizer.betas=[0.9, 0.9] is not allowed: it must be three numbers",
    "optimizer=lion optimizer.betas=[0.9,1]": "optimizer.betas=[0.9, 1.0] is not allowed: it must be two numbers",
    "optimizer.block_lrs={stage7:-1}": "optimizer.block_lrs.stage7=-1.0 is not allowed: it must be above 0",
    "scheduler.warmup=1": "scheduler.warmup=1.0 is not allowed: it must be a fraction of the phase",
    "train.batch_size=0": "train.batch_size=0 is not allowed",
    "train.clip_norm=0": "train.clip_norm=0.0 is not allowed: it must be above 0, or null for no clipping",
    "train.accumulate=0": "train.accumulate=0 is not allowed: it must be at least 1",
    "train.ema=1": "train.ema=1.0 is not allowed: it must be above 0 and below 1, or null",
    "train.l2_sp=0": "train.l2_sp=0.0 is not allowed: it must be above 0, or null",
    "train.wise_ft=[0.5,1]": "train.wise_ft=[0.5, 1.0] is not allowed: it must be numbers, each at least 0 and below 1",
    "train.patience=0": "train.patience=0 is not allowed: it must be at least 1, or null",
    "loss.label_smoothing=1": "loss.label_smoothing=1.0 is not allowed",
    "augment.mixup=-1": "augment.mixup=-1 is not allowed: it must be 0 or above",
    "augment.cutmix=-1": "augment.cutmix=-1 is not allowed: it must be 0 or above",
    "augment.views=0": "augment.views=0 is not allowed: it must be auto, inf, or at least 1",
    "augment.views=some": "augment.views=some is not allowed: it must be auto, inf, or at least 1",
    "augment.erasing=2": "augment.erasing=2 is not allowed: it must be a probability",
    "data.val_fraction=0": "data.val_fraction=0.0 is not allowed: it must be between 0 and 1",
    "data.val_fraction=0.9": "data.val_fraction + data.test_fraction=1.1 is not allowed: it must be below 1",
    "model.image_size=4": "model.image_size=4 is not allowed: it must be null or >= 8",
    "runtime.device=gpu": "runtime.device=gpu is not allowed: it must be auto, cpu, cuda, cuda:N or mps",
    "runtime.compile=yes": "runtime.compile=yes is not allowed: it must be auto, true or false",
    "runtime.workers=-1": "runtime.workers=-1 is not allowed",
    "runtime.cache_folder=": "runtime.cache_folder is empty. Give a file or folder; for the working folder write",
    "runtime.seed=-1": "runtime.seed=-1 is not allowed",
    "tracking.uri=null": "tracking.uri=null is not allowed: it must be an MLflow tracking URI",
}


@pytest.mark.parametrize(("settings", "message"), VALUES.items(), ids=list(VALUES))
def test_values_that_are_not_allowed_are_refused(settings: str, message: str, configure: Compose) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        configure(*settings.split())


PLANS = {
    "stage.last_blocks=99": "last_blocks=99 in phase last: the network has 8 blocks before its head",
    "optimizer.block_lrs={stge7:1}": "block_lrs.stge7: the network has no block stge7. Did you mean 'stage7'?",
    "stage=head optimizer.block_lrs={stage7:1}": "optimizer.block_lrs.stage7 has no effect: stage7 is frozen",
    "stage.phases=[{name:a,learn:blocks,blocks:[layer4],epochs:1}] stage.last_blocks=null": "has no block layer4",
}


@pytest.mark.parametrize(("settings", "message"), PLANS.items(), ids=list(PLANS))
def test_impossible_plans_are_refused(settings: str, message: str, configure: Compose) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan(configure(*settings.split()))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("stage.last_blocks=99", "last_blocks=99 in phase last: the network has 8 blocks before its head"),
        ("runtime.device=cuda", "runtime.device=cuda: this machine has no CUDA device: "),
    ],
)
def test_impossible_plans_and_devices_end_a_run_before_data_is_read(
    command: str, message: str, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("ftexp.preparation.prepare.read_recorded", None)  # calling it would be a TypeError
    ended = command_line(command)
    assert ended.returncode == 1
    assert message in ended.stderr


def test_a_misspelt_key_in_a_file_of_the_users_is_named(tmp_path: Path, command_line: CommandLine) -> None:
    file = tmp_path / "mine" / "optimizer" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("defaults: [adamw, _self_]\nweight_decy: 0.1\n")
    ended = command_line("--config-dir", str(tmp_path / "mine"), "optimizer=mine")
    assert ended.returncode == 1
    assert "optimizer/mine" in ended.stderr
    assert "Did you mean: 'weight_decay'" in ended.stderr


def in_a_process(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-m", "ftexp", *arguments]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["--cfg", "job"], ["epochs=5"], ["+epochs=5"]])
def test_help_and_mistakes_come_without_importing_torch(tmp_path: Path, arguments: list[str]) -> None:
    ended = in_a_process(*arguments, folder=tmp_path)
    assert ended.returncode == (1 if "epochs" in arguments[0] else 0)
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if "import time:" in line}
    assert "ftexp.config" in imported
    assert not imported & {"torch", "timm", "mlflow", "sklearn", "optuna"}


@pytest.mark.parametrize("argument", ["--help", "--version", "--lr=1"])
def test_help_and_unknown_options_come_before_hydra_looks_for_plugins(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, argument: str
) -> None:
    monkeypatch.setattr(Plugins, "instance", None)  # calling it, which takes a tenth of a second, would be a TypeError
    assert "Traceback" not in command_line(argument).stderr


def test_help_alone_is_what_hydra_prints_with_other_arguments(command_line: CommandLine) -> None:
    alone, with_others = (command_line(*arguments).stdout for arguments in (["--help"], ["--help", "stage=head"]))
    assert alone == with_others
    assert "stage      * auto, bias" in alone


def test_every_command_has_a_help_of_its_own(command_line: CommandLine) -> None:
    for flag, first, command in (("--help", "ftexp.lr_find suggests", lr_find), ("-h", "ftexp.audit splits", audit)):
        shown = command_line(flag, "stage=head", entry=command)
        assert shown.returncode == 0
        assert shown.stdout.startswith(first)
        assert f"python -m {first.split()[0]} data=" in shown.stdout
        refused = command_line("-m", "optimizer.head_lr=1,2", entry=command)
        assert refused.returncode == 1
        assert "This command has no sweeps: leave -m out." in refused.stderr


@pytest.mark.parametrize("module", ["ftexp", "ftexp.audit"])
def test_a_closed_pipe_is_not_an_error(tmp_path: Path, module: str) -> None:
    command, pipes = [sys.executable, "-u", "-m", module, "--help"], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipes, stderr=pipes, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before anything was written
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0


def test_the_traceback_comes_back_on_demand(tmp_path: Path) -> None:
    ended = in_a_process("stage.epochs=0", folder=tmp_path, HYDRA_FULL_ERROR="1")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "ConfigError: stage.epochs=0 is not allowed" in ended.stderr


def test_your_own_keys_are_welcome_in_mappings(configure: Compose) -> None:
    config = configure("optimizer.block_lrs.stage7=1e-5", "optimizer.block_lrs.stage6=1e-6")
    assert config.optimizer.block_lrs == {"stage7": 1e-5, "stage6": 1e-6}


def test_settings_of_other_commands_are_not_those_of_a_run(configure: Compose) -> None:
    """Otherwise a run that began before such a setting existed could not be resumed."""
    assert {"probe", "sweep", "resume"}.isdisjoint(as_data(configure()))
