"""``python -m ftexp.settings`` explains every setting, from the comments of the schema and of conf/."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from ftexp import settings
from ftexp.config import Config
from ftexp.config.conf_dir import conf_dir
from ftexp.config.explanations import Explained, explained_fields, head_comment, purpose
from ftexp.config.known_keys import known_keys
from ftexp.metric_names import METRICS


@dataclass(slots=True)
class Base:
    """What it is for, over
    two lines with ``code``.
    """

    size: int = 1
    # One comment
    # for both.
    width: float = 1.0
    height: float = 2.0

    # After an empty line.
    depth: float = 3.0


@dataclass(slots=True)
class Derived(Base):
    """Another."""

    size: int = 2
    # Of its own.
    colour: str = "red"
    bare: int = 0

    shape: str = "square"


@dataclass(slots=True)
class Alike:
    """No comments."""

    colour: str = "auto"
    width: str = "auto"
    height: str = "auto"
    new: str = "auto"


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = settings.main(list(arguments))
    out, errors = capsys.readouterr()
    return code, out, errors


def test_comments_explain_the_fields_below_them() -> None:
    assert explained_fields(Derived) == (
        Explained(("size",), ""),
        Explained(("width", "height"), "One comment for both."),
        Explained(("depth",), "After an empty line."),
        Explained(("colour", "bare"), "Of its own."),
        Explained(("shape",), ""),
    )
    assert purpose(Base) == "What it is for, over two lines with code."


def test_fields_without_a_comment_have_that_of_a_field_of_the_same_name() -> None:
    assert explained_fields(Alike, (Derived, Alike)) == (
        Explained(("width", "height"), "One comment for both."),
        Explained(("colour",), "Of its own."),
        Explained(("new",), ""),
    )


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        ("# @package _global_\n# Train\n# all.\ndefaults: []\n# not this", "Train all."),
        ("# Why.\n#\n# Details.\nname: x", "Why."),
        ("name: x\n# not this", ""),
    ],
)
def test_the_comment_at_the_head_of_a_file(text: str, comment: str, tmp_path: Path) -> None:
    (tmp_path / "option.yaml").write_text(text)
    assert head_comment(tmp_path / "option.yaml") == comment


def test_every_setting_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of recipe are numbers in a table, whose rows and columns say what they are."""
    groups = [field.name for field in fields(Config)]
    code, out, _ = shown(capsys, *groups)
    assert code == 0
    told = re.findall(r"^  ([a-z_]+\.[\w.]+)(?: =| +#|$)", out, flags=re.MULTILINE)
    assert {key for key in known_keys() if not key.startswith("recipe.")} - {"stage.phases"} <= set(told)
    parts = [part for part in re.split(r"\n\n", out) if re.match(r"  [a-z_]+\.", part)]
    bare = [part for part in parts if not part.startswith("  recipe.") and "\n      " not in part]
    assert bare == []


def test_every_option_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    groups = [field.name for field in fields(Config)]
    _, out, _ = shown(capsys, *groups)
    options = [file for group in groups for file in (conf_dir() / group).glob("*.yaml") if group != "model"]
    assert len(options) > 40
    for file in options:
        assert re.search(rf"^  {file.stem}: [A-Z].{{15}}", out, flags=re.MULTILINE), file


def test_values_are_those_of_the_given_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = shown(capsys, "train.ema", "stage.last_blocks", "policy")
    assert "\n  stage.last_blocks = 1\n" in out
    assert out.startswith("  train.ema = 0.98\n")
    assert "  augment.policy = auto\n" in out
    _, out, _ = shown(capsys, "train.ema", "stage.last_blocks", "policy", "stage=partial", "stage.last_blocks=3")
    assert out.startswith("  train.ema = null\n")
    assert "\n  stage.last_blocks = 3\n" in out
    assert "  augment.policy = none    # none, trivial, rand\n" in out


def test_what_only_other_options_have_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = shown(capsys, "data")
    assert "\n  data.layout = auto    # auto, classes    # with data=imagefolder\n" in out
    assert "\n  data.root    # with data=imagefolder\n" in out
    _, out, _ = shown(capsys, "data.layout", "data=imagefolder", "data.root=pictures")
    assert out.startswith("  data.layout = auto    # auto, classes\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train.emma", "There is no group or setting train.emma. Did you mean 'train.ema'?"),
        ("batchsize", "There is no group or setting batchsize. Did you mean"),
        ("stagee", "There is no group or setting stagee."),
    ],
)
def test_a_name_that_does_not_exist(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, errors = shown(capsys, name)
    assert (code, out) == (1, "")
    assert errors.startswith(f"ftexp: {message}")
    assert "python -m ftexp.settings lists the groups." in errors


def test_without_a_name_the_groups_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = shown(capsys)
    assert code == 0
    groups = [*(field.name for field in fields(Config)), "experiment"]
    assert re.findall(r"^  ([a-z_]+) +[A-Z]", out, flags=re.MULTILINE) == groups


def test_experiments_are_listed_with_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = shown(capsys, "experiment")
    assert code == 0
    assert out.startswith(
        "experiment: Settings of several groups that belong together.\n\nOptions, as experiment=NAME:\n"
        "  eight_gpus: One run on all GPUs of a machine: torchrun"
    )
    options = sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml"))
    assert re.findall(r"^  (\w+): [A-Z]", out, flags=re.MULTILINE) == options
    assert "tracking.experiment" not in out


def test_passwords_are_not_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host/mlflow")
    _, out, _ = shown(capsys, "tracking.uri")
    assert out.startswith("  tracking.uri = https://***@host/mlflow\n")


def test_every_metric_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    _, out, _ = shown(capsys, "train.metric")
    assert set(METRICS) <= set(re.findall(r"\w+", out))
