"""What people write on the command line, and what Hydra then reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import CommandLine, Compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString

from ftexp.cli.arguments import readable
from ftexp.config.known_keys import hint, known_keys
from ftexp.config.root import Config
from ftexp.errors import ConfigError

ROOT = list(Config.__dataclass_fields__)


def value_of(*arguments: str) -> object:
    """What Hydra makes of the last argument."""
    (override,) = OverridesParser.create().parse_overrides([readable(arguments)[-1]])
    if override.is_sweep_override():
        found = override.value()
        assert isinstance(found, ChoiceSweep)
        return [choice.text if isinstance(choice, QuotedString) else choice for choice in found.list]
    return override.value()


FOLDERS = (
    *("dirs/a=b", "ä", "日本語", "my pictures", "a,b", "[new]", "pictures (1)", "{x}", "$HOME", "a#b", "it's", 'a"b'),
    *(
        "'",
        '"',
        "a&b;c",
        "x!",
        "`x`",
        "a\\",
        "C:\\x\\y",
        "ä\\",
        "ä\\'",
        "2024_01",
        "1e3",
        "007",
        "true",
        "1.0",
        "a:b",
        "a@b",
    ),
    *("~nobody_of_this_name/x", "./~", "[]", "a=", "=", "-", "+x", "a  b", "f(", "😀"),
)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("key", ["data.root", "++hydra.run.dir"])
def test_text_with_special_characters_is_not_changed(key: str, folder: str) -> None:
    assert value_of("stage=head", f"{key}={folder}") == folder


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("data.root=null", None),
        ("data.root=", ""),
        ('data.root="a b"', "a b"),
        ("data.root='a,b'", "a,b"),
        ("hydra.run.dir=runs/${model.name} (1)", "runs/${model.name} (1)"),
        ("data.root =x", "x"),
        ("optimizer.head_lr=~1", "~1"),  # for the message about its type
        ("optimizer.betas=[0.9,0.99]", [0.9, 0.99]),
        ("optimizer.block_lrs={stage7:1e-3}", {"stage7": 1e-3}),
        ("model.class_map={cat: kätzchen, a b: 'ö, c', x:y}", {"cat": "kätzchen", "a b": "ö, c", "x": "y"}),
        ("train.batch_size=16", 16),
        ("model=ä", "ä"),
    ],
)
def test_values_with_a_meaning_to_hydra_keep_it(argument: str, value: object) -> None:
    assert value_of(argument) == value


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("data.root=a,b", ["a", "b"]),
        ("data.root=2024_01,2024_02", ["2024_01", "2024_02"]),
        ("data.root=ä,b/c=d", ["ä", "b/c=d"]),
        ("data.root='a,b','ä'", ["a,b", "ä"]),
        ("model.weights=null,default", [None, "default"]),
        ("train.batch_size=16 ,32", [16, 32]),
    ],
)
def test_a_comma_of_a_sweep_separates(argument: str, values: list[object]) -> None:
    assert value_of("-m", argument) == values


@pytest.mark.parametrize(
    "key", ["data.root", "data.file", "model.weights", "audit.cache", "runtime.cache_folder", "hydra.run.dir"]
)
def test_a_tilde_is_the_home_folder(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/mé")
    assert value_of(f"{key}=~/x y") == "/home/mé/x y"
    assert value_of(f"{key}=~") == "/home/mé"
    assert readable(["resume=~/x"]) == ["resume=/home/mé/x"]


def test_a_tilde_in_quotes_or_in_a_file_is_the_home_folder_too(
    configure: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = configure("data=imagefolder", "data.root='~/x'", "runtime.cache_folder='~/c'", "audit.cache=null")
    assert (config.data.root, config.runtime.cache_folder, config.audit.cache) == ("/home/me/x", "/home/me/c", None)


@pytest.mark.parametrize("flag", ["--info", "-i"])
def test_info_without_a_value_does_not_take_the_setting_that_follows(flag: str) -> None:
    for before, after in ([], ["stage=head"]), (["stage=head"], []), ([], ["-m"]), ([], ["+experiment=ray"]):
        assert readable([*before, flag, *after]) == [*before, "--info=all", *after]
    assert readable([flag, "defaults", "stage=head"]) == [flag, "defaults", "stage=head"]


def test_flags_and_their_values_are_left_alone() -> None:
    for flags in (["--cfg", "job"], ["--config-dir", "/ä=b"], ["-c", "job", "-p", "a,b"], ["-m"], ["~sweep.space.x"]):
        assert readable([*flags, "stage=head"]) == [*flags, "stage=head"]


REFUSED = {
    "optimizer.betas=[0.9,": "cannot be parsed: no viable alternative at input '[0.9,'.*'optimizer.betas=\"[0.9,\"'.",
    "optimizer.head_lr=f(1": "needs quotes of its own, inside those of the shell: 'optimizer.head_lr=\"f(1\"'.",
    "optimizer.head_lr=intervall(1,2)": "Unknown function 'intervall'.",
    "optimizer.head_lr=1,2": "To try each of them add -m; a list is written optimizer.head_lr=[1,2].",
    "optimizer=sgd,adamw": "gives several values. To try each of them add -m.",
    "-m lr=1,2": "There is no setting lr. Did you mean optimizer.head_lr,",
    "-m optimiser=sgd,adamw": "There is no setting optimiser. Did you mean 'optimizer'?",
    "-m train.lr=1,2": "There is no setting train.lr. Did you mean optimizer.head_lr,",
    "-m optimizer.nosuch=interval(1,2)": "There is no setting optimizer.nosuch. Allowed here: optimizer.name, ",
    "-m optimizer.head_lr=1e-3,": "has a comma with no value beside it. Write optimizer.head_lr=VALUE,VALUE without",
    "-m data.root=,a": "'data.root=,a' has a comma with no value beside it.",
    "data.root=b\udce4se": "'data.root=b\\udce4se' has bytes that are not valid UTF-8. Rename the file or folder",
    "data.root = x": "'data.root' is not of the form key=value. Write it without spaces: data.root=x.",
    "data.root =x": "Write it without spaces: data.root=x.",
    "data.root= x": "'x' is not of the form key=value. Write it without spaces: data.root=x.",
    "data.root x": "Write data.root=x.",
    "data.root=my pictures": "put both in quotes: 'data.root=my pictures'.",
    "pictures": "'pictures' is not of the form key=value. Choose an option with group=option, set a key with",
    "=3": "'=3' is not of the form key=value. Its key is missing.",
    "model.class_map={ä:a}": "only ASCII letters. Write it into a file, own/model/mine.yaml, with the lines 'defaults:",
    "optimizer.=3": "has no valid key: 'optimizer.'.",
    "~optimizer": "'~optimizer' would remove optimizer, which a run needs. Omit it to use the value in conf/",
    "~train.metric": "give another one: train.metric=VALUE.",
    "hydra.run.dir=": "hydra.run.dir is empty. Give a file or folder; for the working folder write hydra.run.dir=.",
    'hydra.sweep.dir=""': "hydra.sweep.dir is empty.",
    "--lr 0.1": "There is no flag --lr; settings are given as key=value. Did you mean optimizer.head_lr,",
    "--batch-size=3": "There is no flag --batch-size; settings are given as key=value. Did you mean train.batch_size?",
    "--data.root x": "There is no flag --data.root. Settings are given as key=value: data.root=x.",
    "--data.root=x": "Settings are given as key=value: data.root=x.",
    "--nothing": "There is no flag --nothing; settings are given as key=value. --cfg job shows all settings.",
}


@pytest.mark.parametrize(("command", "message"), REFUSED.items(), ids=list(REFUSED))
def test_unreadable_arguments_are_explained(command: str, message: str) -> None:
    pattern = ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(ConfigError, match=pattern):
        readable(command.split(" "))


MEANT = {
    "epochs num_epochs max_epochs epohcs epoch": " Did you mean stage.epochs?",
    "seed sed random_state": " Did you mean runtime.seed (data.seed is for the split)?",
    "lr learning_rate learningRate optimizer.lr train.lr": (
        " Did you mean optimizer.head_lr, and optimizer.backbone_lr for the blocks below the head?"
    ),
    "batch bs batch_size batch-size data.batch_size batchsize": " Did you mean train.batch_size?",
    "workers num_workers data.num_workers": " Did you mean runtime.workers?",
    "device gpus": " Did you mean runtime.device?",
    "pretrained model.pretrained": " Did you mean model.weights: default, null (random) or a file?",
    "img_size imgsz": " Did you mean data.image_size, or model.image_size?",
    "weight_decay wd": " Did you mean optimizer.weight_decay?",
    "momentum": " Did you mean optimizer.momentum (of optimizer=sgd)?",
    "num_classes model.num_classes": " It need not be set: the classes are those of the data.",
    "data.dir root_dir": " Did you mean data=imagefolder data.root=FOLDER?",
    "resume.from resume_from_checkpoint": " Did you mean resume=FOLDER or resume=auto?",
    "stage.epoch": " Did you mean 'stage.epochs'?",
    "data.val": " Did you mean 'data.val_fraction'?",
    "optimiser": " Did you mean 'optimizer'?",
    "headlr": " Did you mean optimizer.head_lr?",
    "foo": "",
}


@pytest.mark.parametrize(
    ("key", "sentence"), [(key, sentence) for keys, sentence in MEANT.items() for key in keys.split()]
)
def test_similar_keys_are_suggested_for_a_misspelt_one(key: str, sentence: str) -> None:
    group = key.rpartition(".")[0]
    beside = [known.partition(".")[2] for known in known_keys() if known.startswith(f"{group}.")]
    assert hint(key, beside if group else ROOT) == sentence


def test_every_hint_names_an_existing_key() -> None:
    from ftexp.config import known_keys as module

    named = {word for ours in module._ELSEWHERE for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", ours)}
    assert named - set(known_keys()) == {"hydra.run.dir", "hydra.sweeper.n_trials"}


@pytest.mark.parametrize("name", ["dirs=a b (1), ä", "2024_01"])
def test_the_data_are_looked_for_in_a_folder_of_any_name(tmp_path: Path, command_line: CommandLine, name: str) -> None:
    ended = command_line("data=imagefolder", f"data.root={name}")
    assert ended.returncode == 1
    assert name in ended.stderr
    (tmp_path / name).mkdir()
    assert command_line("data=imagefolder", f"data.root={name}").stderr != ended.stderr
