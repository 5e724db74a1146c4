"""``python -m ftexp.audit`` as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from conftest import CommandLine, Compose
from edits import picture, turned_and_cut
from photographs import jpeg, photograph

from ftexp.audit.__main__ import audit_once
from ftexp.audit.__main__ import main as command
from ftexp.errors import ConfigError

Audit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def audit(command_line: CommandLine) -> Audit:
    """``python -m ftexp.audit`` with more settings."""
    return lambda *overrides: command_line("hydra.run.dir=out", *overrides, entry=command)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, first in (("train", 0), ("val", 20), ("test", 40)):
        for label, offset in (("cats", 0), ("dogs", 5)):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for seed in range(first + offset, first + offset + 5):
                photograph(seed).save(folder / f"{(seed * 7919) % 104729:06d}.png")
    return tmp_path


SOURCE = ("data=imagefolder", "data.root=data", "audit.features=false")


def test_clean(data: Path, audit: Audit) -> None:
    done = audit(*SOURCE)
    assert done.returncode == 0, done.stderr
    assert "audit   30 images" in done.stdout
    assert len((data / "out" / "leaks.csv").read_text().splitlines()) == 1
    assert len((data / "out" / "splits.csv").read_text().splitlines()) == 31


@pytest.mark.slow
def test_geometry_finds_what_was_turned_and_ties_keep_it_together(data: Path, audit: Audit) -> None:
    picture(3).save(data / "data" / "train" / "cats" / "original.png")
    turned_and_cut(picture(3), 7).save(data / "data" / "test" / "cats" / "turned.png")
    geometry = ("data=imagefolder", "data.root=data")
    assert audit(*geometry, "audit.geometry=false").returncode == 0
    done = audit(*geometry)
    assert done.returncode == 1
    assert (
        "1 x one picture, edited (turned, framed, with text, recoloured) or taken again, in two splits" in done.stderr
    )
    assert audit(*geometry, "data.split=stratified", "data.tie_duplicates=true").returncode == 0
    assert "2 images have a copy" in (data / "out" / "ftexp.log").read_text()


def test_groups_are_written_and_split_by(data: Path, audit: Audit) -> None:
    for number, split in enumerate(("train", "val", "test")):
        turned_and_cut(picture(3), 7 * number).save(data / "data" / split / "cats" / f"turned{number}.png")
    source = ("data=imagefolder", "data.root=data", "data.split=stratified")
    audit(*source, "audit.write_groups=groups.csv", "audit.on_leak=warn")
    rows = [line.split(",") for line in (data / "groups.csv").read_text().splitlines()]
    assert rows[0] == ["path", "group"]
    assert {Path(path).stem for path, _ in rows[1:]} == {"turned0", "turned1", "turned2"}
    assert len({group for _, group in rows[1:]}) == 1
    log = (data / "out" / "ftexp.log").read_text()
    assert "3 images are in 1 groups" in log
    assert "has 3 of 33 images" in log
    assert audit(*source, "data.groups=groups.csv").returncode == 0


def test_a_leak_ends_with_exit_code_1_and_one_message(data: Path, audit: Audit) -> None:
    jpeg(photograph(0), 50).save(data / "data" / "test" / "cats" / "copy.jpg")
    done = audit(*SOURCE)
    assert done.returncode == 1
    assert "ftexp: The splits leak" in done.stderr
    assert "Traceback" not in done.stderr
    assert "near_duplicate,fail,train" in (data / "out" / "leaks.csv").read_text()
    # The one setting that the message names makes an honest split of it.
    assert audit(*SOURCE, "data.split=stratified", "data.tie_duplicates=true").returncode == 0


def test_help_is_short_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, runpy; sys.argv[1:] = ['--help']; runpy.run_module('ftexp.audit', run_name='__main__');"
    code += "assert not {'torch', 'mlflow', 'timm'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) < 24
    for part in ("audit.on_leak=fail|warn", "leaks.csv", "Exit code: 0", "data.tie_duplicates=true"):
        assert part in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_second_run_decodes_nothing_and_finds_the_same(data: Path, audit: Audit) -> None:
    (data / "data" / "test" / "cats" / "copy.png").write_bytes((data / "data/train/cats/000000.png").read_bytes())
    first, second = (audit(*SOURCE, f"hydra.run.dir={name}") for name in ("one", "two"))
    assert first.returncode == second.returncode == 1
    assert (data / "one" / "leaks.csv").read_text() == (data / "two" / "leaks.csv").read_text()


def test_bad_images_are_found_in_the_same_look(data: Path, audit: Audit) -> None:
    (data / "data" / "train" / "cats" / "torn.png").write_bytes(b"\x89PNG torn")
    done = audit(*SOURCE)
    assert done.returncode == 1
    assert "1 of 31 files cannot be read" in done.stderr
    assert audit(*SOURCE, "data.on_bad_image=skip").returncode == 0
    assert "torn.png" in (data / "out" / "bad_images.csv").read_text()


def test_off_is_refused(configure: Compose, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set fail or warn"):
        audit_once(configure("audit.on_leak=off"), tmp_path)


def test_a_refused_run_is_in_the_tracking_store_with_the_reason(
    data: Path, command_line: CommandLine, store: str
) -> None:
    (data / "data" / "test" / "cats" / "copy.png").write_bytes((data / "data/train/cats/000000.png").read_bytes())
    done = command_line("hydra.run.dir=out", *SOURCE, f"tracking.uri={store}")
    assert done.returncode == 1
    assert "The splits leak" in done.stderr
    assert not (data / "out" / "checkpoints").exists()
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("ftexp").experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.tags["refused"] == "leak"
    assert {"leaks.csv", "splits.csv"} <= {file.path for file in client.list_artifacts(run.info.run_id)}
