"""Files and names from strangers: refused or harmless."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_images import find_bad_images
from conftest import CommandLine, Compose
from PIL import Image

from ftexp.cli.resume_arguments import saved_overrides
from ftexp.config import Config
from ftexp.data.loading.limits import ImageLimits
from ftexp.data.samples import Sample
from ftexp.data.sources.registry import read_samples
from ftexp.errors import CheckpointError, DataError, UserError
from ftexp.training.checkpoints.checkpoint import load_checkpoint


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._mark,)


@pytest.mark.parametrize("wrapped", ["zip", "plain"])
def test_a_checkpoint_with_code_in_it_is_refused_and_runs_nothing(tmp_path: Path, wrapped: str) -> None:
    mark, file = tmp_path / "executed", tmp_path / "best.pt"
    if wrapped == "zip":
        torch.save({"model": Hostile(mark)}, file)
    else:
        file.write_bytes(pickle.dumps(Hostile(mark)))
    with pytest.raises(CheckpointError, match=r"best.pt is damaged, or is not a checkpoint of plain data"):
        load_checkpoint(file)
    assert not mark.exists()


def test_weights_with_code_in_them_are_refused_and_run_nothing(configure: Compose, tmp_path: Path) -> None:
    from ftexp.models.catalogue import build_network, locate_weights

    mark, file = tmp_path / "executed", tmp_path / "weights.pth"
    torch.save({"state_dict": Hostile(mark)}, file)
    config = configure("model=resnet18", f"model.weights='{file}'")
    with pytest.raises(UserError, match=r"weights\.pth"):
        build_network(config.model, locate_weights(config.model), 2, 32)
    assert not mark.exists()


def test_an_archive_is_never_unpacked_so_its_paths_lead_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "last.pt"
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../outside", "x")
        archive.writestr("last/../../data.pkl", pickle.dumps({}))
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged, or is not a checkpoint"):
        load_checkpoint(file)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "last.pt"]


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "a/../../secret.png"])
def test_a_manifest_does_not_lead_out_of_its_root(configure: Compose, tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (root / "list.csv").write_text(f"path,label\n{path},x\n")
    config = configure("data=manifest", f"data.file='{root / 'list.csv'}'", f"data.root='{root}'")
    with pytest.raises(UserError, match=r"list.csv.*line 2|line 2.*list.csv"):
        read_samples(config.data)


def test_an_image_that_would_fill_the_memory_is_not_decoded(tmp_path: Path) -> None:
    file = tmp_path / "bomb.png"
    Image.fromarray(np.zeros((3000, 4000), np.uint8)).convert("1").save(file, compress_level=9)
    assert file.stat().st_size < 20_000
    ((_, reason),) = find_bad_images([Sample(str(file), "x")], 1, ImageLimits(max_pixels=1_000_000))
    assert reason == "12.0 megapixels, above data.max_megapixels=1"


def manifest_with(configure: Compose, folder: Path, label: str) -> Config:
    for number in range(2):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    quoted = label.replace('"', '""')
    (folder / "list.csv").write_text(f'path,label\n0.png,"{quoted}"\n1.png,plain\n')
    return configure("data=manifest", f"data.file='{folder / 'list.csv'}'", f"data.root='{folder}'")


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a,b=c", "..", "a/../../b", "ü", "a'b\"c"])
def test_class_names_that_mean_something_elsewhere_stay_names(configure: Compose, tmp_path: Path, name: str) -> None:
    config = manifest_with(configure, tmp_path, name)
    assert {sample.label for sample in read_samples(config.data)} == {name, "plain"}


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[31mb", "a\x00b"])
def test_class_names_with_control_characters_are_refused(configure: Compose, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"list.csv.* (column 'label' contains .* unprintable|NUL)"):
        read_samples(manifest_with(configure, tmp_path, name).data)


def test_folders_with_control_characters_are_refused(configure: Compose, tmp_path: Path) -> None:
    for label in ("plain", "a\nb\x1b[31m"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / label / "0.png")
    with pytest.raises(DataError, match=r"a\\nb\\x1b\[31m/0.png'.*unprintable"):
        read_samples(configure("data=imagefolder", f"data.root='{tmp_path}'").data)


@pytest.mark.parametrize(
    "override", ["+model._target_=os.getcwd", "+optimizer._target_=subprocess.call", "+_target_=x"]
)
def test_a_target_is_an_unknown_key_and_nothing_is_called(command_line: CommandLine, override: str) -> None:
    ended = command_line(override)
    assert ended.returncode == 1
    assert "There is no setting" in ended.stderr
    assert "_target_" in ended.stderr


def test_a_configuration_read_back_is_data_and_never_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configure: Compose
) -> None:
    monkeypatch.setenv("FTEXP_SECRET", "hunter2")
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- tracking.experiment=${oc.env:FTEXP_SECRET}\n")
    assert saved_overrides(tmp_path) == ["tracking.experiment=${oc.env:FTEXP_SECRET}"]
    (tmp_path / ".hydra" / "overrides.yaml").write_text("!!python/object/apply:os.getcwd []\n")
    with pytest.raises(Exception, match="could not determine a constructor"):
        saved_overrides(tmp_path)


@pytest.mark.parametrize("hook", ["hydra.job_logging.handlers.console", "hydra.hydra_logging.handlers.console"])
def test_a_log_handler_of_a_strangers_config_is_not_called(
    tmp_path: Path, command_line: CommandLine, hook: str
) -> None:
    """Python's logging configuration calls whatever it names; Hydra lets it call only what we list."""
    call = [f"+{hook}.()=os.mkdir", f"+{hook}.path={tmp_path / 'executed'}"]
    ended = command_line(*call, "stage.epochs=0")
    assert ended.returncode == 1
    assert not (tmp_path / "executed").exists()
    assert "os.mkdir" in ended.stderr
