"""What a user installs and reads first: wheel, Makefile, constraints, help, README."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ftexp.__main__ import COMMANDS
from ftexp.cli.help_options import list_options
from ftexp.config import Config
from ftexp.metric_names import METRICS

REPOSITORY = Path(__file__).parents[1]
CONF = REPOSITORY / "conf"
README = REPOSITORY / "README.md"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")


def read_constraints():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return {
        canonicalize_name(r.name): r for r in map(Requirement, (line for line in lines if line[:1] not in ("", "#")))
    }


def options(group):
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def run(*command, cwd, **environment):
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return result.returncode, result.stdout, result.stderr


def test_constraints_are_names_and_exact_versions_only():
    for requirement in read_constraints().values():
        assert re.fullmatch(r"==[\w.+!]+", str(requirement.specifier)), requirement
        assert requirement.url is None
    assert "ftexp" not in read_constraints()


def test_constraints_satisfy_every_requirement():
    constraints = read_constraints()
    extras = PROJECT["optional-dependencies"]
    for text in PROJECT["dependencies"] + extras["dev"] + extras["services"] + extras["launchers"]:
        requirement = Requirement(text)
        if requirement.name == "ftexp":  # names extras of ours
            continue
        pinned = constraints[canonicalize_name(requirement.name)]
        version = str(pinned.specifier).removeprefix("==")
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is pinned to {version}"


@pytest.mark.parametrize("name", ["hydra-core", "hydra-optuna-sweeper", "omegaconf"])
def test_release_candidates_are_pinned_exactly(name):
    (requirement,) = [r for r in map(Requirement, PROJECT["dependencies"]) if r.name == name]
    assert [specifier.operator for specifier in requirement.specifier] == ["=="]


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "model"])  # too many for one screen
def test_every_group_is_in_the_help_with_its_options(group):
    text = (CONF / "hydra" / "help" / "short.yaml").read_text()
    assert re.search(rf"^    {group} +\$\{{options:{group}\}}", text, flags=re.MULTILINE)


def test_options_are_listed_as_they_lie_in_the_folder(tmp_path):
    (tmp_path / "config.yaml").write_text("defaults: [_config, {loss: focal}, {experiment: null}, _self_]")
    for name in ("loss/bce", "loss/focal", "loss/zeta", "experiment/b", "experiment/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").touch()
    assert list_options(tmp_path, "loss") == "* focal, bce, zeta"
    assert list_options(tmp_path, "experiment") == "  a, b"


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_is_in_the_readme(group):
    text = README.read_text()
    entries = re.findall(rf"^\| `{group}` \|.*$", text, flags=re.MULTILINE)
    if group == "model":
        entries += re.findall(r"^Models: .*?\.$", text, flags=re.MULTILINE | re.DOTALL)
    assert [option for option in options(group) if f"`{option}`" not in "".join(entries)] == []


def test_the_models_in_the_help_exist():
    text = (CONF / "hydra" / "help" / "short.yaml").read_text()
    named = re.search(r"model      \* (.*) and more:", text)
    assert set(named[1].split(", ")) < set(options("model"))


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_in_the_readme(name):
    (paragraph,) = re.findall(r"^`train\.metric` chooses .*?\n\n", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert f"`{name}`" in paragraph


@pytest.mark.parametrize("section", [field.name for field in fields(Config)])
def test_every_section_of_the_configuration_is_in_the_readme(section):
    assert f"\n| `{section}` |" in README.read_text()


def test_help_fits_on_one_screen_and_hides_the_schema(tmp_path):
    code, shown, errors = run(sys.executable, "-m", "ftexp", "--help", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert len(shown.splitlines()) <= 39
    assert COMMANDS.keys() <= set(shown.partition("Other commands")[2].split())
    assert max(map(len, shown.splitlines())) <= 120
    assert not re.search(r"\b_[a-z]", shown)
    others = [option for option in options("stage") if option != "auto"]
    assert f"\n  stage      * auto, {', '.join(others)}\n" in shown
    assert f"\n  experiment   {', '.join(options('experiment'))} (settings" in shown


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_each_make_target_installs_first_and_only_once(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    for target in ("demo", "test", "check", "bench", "ui"):
        code, shown, _ = run("make", "--dry-run", target, cwd=tmp_path)
        assert code == 0
        assert "uv pip install" in shown, target
    stamp = tmp_path / ".venv" / ".installed"
    stamp.parent.mkdir()
    stamp.touch()
    assert "uv pip install" not in run("make", "--dry-run", "demo", cwd=tmp_path)[1]
    os.utime(stamp, (1, 1))  # older than constraints.txt
    assert "uv pip install" in run("make", "--dry-run", "demo", cwd=tmp_path)[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_refuses_an_old_python_in_words(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    old = tmp_path / "old-python"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9, 18); exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    code, _, errors = run("make", "install", f"PYTHON={old}", cwd=tmp_path)
    assert code != 0
    assert f"ftexp needs Python 3.11 or newer, and {old} is 3.9. Choose another one: make PYTHON=python3.12" in errors
    assert not (tmp_path / ".venv").exists()


def test_the_wheel_works_from_any_folder_with_its_configuration(tmp_path):
    code, _, errors = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=REPOSITORY)
    assert code == 0, errors
    (wheel,) = tmp_path.glob("ftexp-*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    packed = {file.relative_to(installed / "ftexp") for file in (installed / "ftexp" / "conf").rglob("*.yaml")}
    assert packed == {file.relative_to(REPOSITORY) for file in CONF.rglob("*.yaml")}

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, shown, errors = run(sys.executable, "-m", "ftexp", "--cfg", "job", cwd=elsewhere, PYTHONPATH=str(installed))
    assert (code, errors) == (0, "")
    assert "name: tf_efficientnet_lite0" in shown
    where = "from ftexp.config.conf_dir import conf_dir; print(conf_dir())"
    _, shown, _ = run(sys.executable, "-c", where, cwd=elsewhere, PYTHONPATH=str(installed))
    assert shown.strip() == str(installed / "ftexp" / "conf")


def test_test_modules_have_names_of_their_own() -> None:
    """Two of one name stop a run of all tests, while each passes alone."""
    names = Counter(path.name for path in (REPOSITORY / "tests").rglob("*.py"))
    assert [name for name, count in names.items() if count > 1] == []
