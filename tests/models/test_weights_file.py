"""Reading a file of weights: the formats, the places in a checkpoint, what it says of itself; nothing is executed."""

from __future__ import annotations

import argparse
import collections
import json
import os
import pickle
import subprocess
from collections import OrderedDict, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from ftexp.errors import WeightsError
from ftexp.models.weights_file import read_weights

STATE = {"body.weight": torch.arange(6.0).reshape(3, 2), "fc.weight": torch.ones(2, 3)}
OTHER = {name: -tensor for name, tensor in STATE.items()}


class Settings(dict[str, object]):
    """As Lightning's AttributeDict: a dict of a class of its own."""


def same(read: dict[str, Tensor], state: dict[str, Tensor]) -> bool:
    return sorted(read) == sorted(state) and all(torch.equal(read[name], state[name]) for name in state)


@pytest.mark.parametrize("suffix", [".pth", ".PT", ".ckpt", ".bin", ".pth.tar", ".safetensors", ""])
@pytest.mark.parametrize("form", ["torch", "old torch", "safetensors"])
def test_the_format_is_known_by_the_bytes_and_not_by_the_name(tmp_path: Path, suffix: str, form: str) -> None:
    path = tmp_path / f"net{suffix}"
    if form == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=form == "torch")
    assert same(read_weights(path).tensors, STATE)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "net", "weights", "module", "my_own_key"])
def test_tensors_are_found_under_the_keys_that_checkpoints_use(tmp_path: Path, key: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({key: STATE, "optimizer": optimizer, "epoch": 3}, tmp_path / "a.pt")
    file = read_weights(tmp_path / "a.pt")
    assert same(file.tensors, STATE)
    assert (file.key, file.passed_over) == (key, ())


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "ema"])
def test_averaged_weights_come_first_and_the_others_are_named(tmp_path: Path, averaged: str) -> None:
    torch.save({"state_dict": OTHER, averaged: STATE}, tmp_path / "a.pt")
    file = read_weights(tmp_path / "a.pt")
    assert same(file.tensors, STATE)
    assert (file.key, file.passed_over) == (averaged, ("state_dict",))


def test_a_checkpoint_wrapped_twice_and_one_with_facts_among_the_tensors_are_read(tmp_path: Path) -> None:
    torch.save({"ema": {"decay": 0.99, "module": STATE}, "epoch": 1}, tmp_path / "twice.pt")
    assert same(read_weights(tmp_path / "twice.pt").tensors, STATE)
    torch.save(OrderedDict(STATE, epoch=3, _comment=None), tmp_path / "mixed.pt")
    assert same(read_weights(tmp_path / "mixed.pt").tensors, STATE)


def test_two_networks_under_unknown_keys_are_not_chosen_between(tmp_path: Path) -> None:
    torch.save({"student": STATE, "teacher": OTHER}, tmp_path / "dino.pt")
    with pytest.raises(WeightsError, match=r"holds several networks .student, teacher.; save the one"):
        read_weights(tmp_path / "dino.pt")


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(model="resnet18", lr=0.1, data=Path("x")),
        np.float64(0.9),
        {"acc": np.float32(0.5), "all": np.zeros(3)},
        Path("runs/1"),
        OmegaConf.create({"a": [1, {"b": "c"}]}),
        defaultdict(list, a=[1]),
        Settings(a=1, b={"c": Settings(d=2)}),
        collections.deque([1, 2]),
        {1, 2},
    ],
    ids=["namespace", "numpy", "arrays", "path", "omegaconf", "defaultdict", "dict", "deque", "set"],
)
def test_tensors_are_read_whatever_stands_beside_them(tmp_path: Path, beside: object, new: bool) -> None:
    content = {"epoch": 1, "arch": "resnet18", "args": beside, "state_dict": STATE, "best": beside}
    torch.save(content, tmp_path / "a.pth.tar", _use_new_zipfile_serialization=new)
    file = read_weights(tmp_path / "a.pth.tar")
    assert same(file.tensors, STATE)
    assert file.made_for == "resnet18"


class Call:
    """Unpickled, it calls a function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.what = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.what


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("place", ["beside", "tensor", "all"])
@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.system, "posix.system"),
        (subprocess.call, "subprocess.call"),
        (eval, "builtins.eval"),
        (exec, "builtins.exec"),
    ],
)
def test_a_hostile_file_is_refused_and_nothing_of_it_is_executed(
    tmp_path: Path, function: Any, named: str, place: str, new: bool
) -> None:
    mark = tmp_path / "executed"
    command: object = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w').close()"
    call = Call(function, ["touch", str(mark)] if function is subprocess.call else command)
    content = {"beside": {"model": STATE, "args": call}, "tensor": {"model": {**STATE, "x": call}}, "all": call}[place]
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(WeightsError, match=f"a.pth would call {named} when .* Nothing in it was executed"):
        read_weights(tmp_path / "a.pth")
    assert not mark.exists()


@pytest.mark.parametrize("function", [Path.touch, getattr, print, __import__, nn.Module.load_state_dict, torch.load])
def test_a_call_of_any_other_function_is_not_made(tmp_path: Path, function: Any) -> None:
    """It is refused, or read as an object that does nothing."""
    mark = tmp_path / "executed"
    torch.save({"model": STATE, "args": Call(function, mark)}, tmp_path / "a.pth")
    with suppress(WeightsError):
        assert same(read_weights(tmp_path / "a.pth").tensors, STATE)
    assert not mark.exists()


def test_reading_leaves_torchs_list_of_safe_classes_as_it_was(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save({"model": STATE, "args": argparse.Namespace(a=1)}, tmp_path / "a.pth")
    read_weights(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("key", [None, "model", "ema"])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
def test_a_whole_pickled_network_is_refused_with_what_to_do(tmp_path: Path, key: str | None, new: bool) -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    content = {key: network, "epoch": 1} if key else network
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(
        WeightsError, match=r"torch\.nn\.modules\.container\.Sequential.*save its tensors once: .*weights_only=False"
    ):
        read_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("beside", [1, argparse.Namespace(a=1)], ids=["plain", "namespace"])
def test_another_version_of_pickle_is_said_with_what_to_do(tmp_path: Path, beside: object) -> None:
    torch.save({"model": STATE, "args": beside}, tmp_path / "a.pt", pickle_protocol=4)
    with pytest.raises(
        WeightsError, match=r"a\.pt has a pickle of another protocol than .* save it again: torch\.save"
    ):
        read_weights(tmp_path / "a.pt")


def test_what_holds_no_tensors_is_said(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": {}}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="holds no named tensors, but epoch, model"):
        read_weights(tmp_path / "a.pt")
    torch.save([torch.ones(1)], tmp_path / "b.pt")
    with pytest.raises(WeightsError, match="holds no named tensors, but a list"):
        read_weights(tmp_path / "b.pt")


def test_a_damaged_file_of_any_format_is_one_message(tmp_path: Path) -> None:
    """Cut, or with bytes that changed: no error but ours leaves the reader."""
    torch.save({"state_dict": STATE, "args": argparse.Namespace(a=1)}, tmp_path / "zip")
    torch.save(STATE, tmp_path / "old", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "safe")
    (tmp_path / "pickle").write_bytes(pickle.dumps(STATE))
    random = np.random.default_rng(0)
    for form in ("zip", "old", "safe", "pickle"):
        whole = (tmp_path / form).read_bytes()
        for number in range(40):
            changed = bytearray(whole)
            if number % 4 == 0:
                changed = changed[: random.integers(1, len(whole))]
            for place in random.integers(0, len(changed), 4):
                changed[place] = random.integers(0, 256)
            (tmp_path / "a.pth").write_bytes(changed)
            with suppress(WeightsError):
                read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("facts", "classes"),
    [
        ({"class_to_idx": {"b": 1, "a": 0}}, ("a", "b")),
        ({"classes": ["x", "y"]}, ("x", "y")),
        ({"class_names": ("x", "y")}, ("x", "y")),
        ({"names": {0: "x", 1: "y"}}, ("x", "y")),
        ({"hyper_parameters": {"class_to_idx": {"a": 0, "b": 1}}}, ("a", "b")),
        ({"hyper_parameters": Settings(classes=["x", "y"])}, ("x", "y")),
        ({"args": argparse.Namespace(classes=["x", "y"])}, ("x", "y")),
        ({"class_to_idx": {"a": 0, "b": 2}}, None),
        ({"class_to_idx": {"a": 1, "b": 2}}, None),
        ({"classes": ["x", "x"]}, None),
        ({"classes": 2}, None),
        ({"classes": "xy"}, None),
        ({}, None),
    ],
)
def test_the_classes_are_taken_in_the_order_of_their_numbers(
    tmp_path: Path, facts: dict[str, object], classes: tuple[str, ...] | None
) -> None:
    torch.save({"state_dict": STATE, **facts}, tmp_path / "a.pt")
    assert read_weights(tmp_path / "a.pt").classes == classes


def test_hugging_faces_description_lies_beside_its_weights(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "label_names": ["a", "b"]}))
    file = read_weights(tmp_path / "model.safetensors")
    assert (file.classes, file.made_for) == (("a", "b"), "resnet18")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"1": "b", "0": "a"}}))
    assert read_weights(tmp_path / "model.safetensors").classes == ("a", "b")
    (tmp_path / "config.json").write_text("{")
    assert read_weights(tmp_path / "model.safetensors").classes is None


def test_weights_cut_into_several_files_are_joined(tmp_path: Path) -> None:
    files = {"body.weight": "model-00001-of-00002.safetensors", "fc.weight": "model-00002-of-00002.safetensors"}
    for name, file in files.items():
        save_file({name: STATE[name]}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    assert same(read_weights(index).tensors, STATE)
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(WeightsError, match="not in its own folder"):
        read_weights(index)
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(WeightsError, match=r"index\.json cannot be read as weights: .*gone\.safetensors"):
        read_weights(index)
