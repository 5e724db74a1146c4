"""The names and signatures of ``import ftexp`` are a promise; so are the examples of its own parts."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TinyNet, draw_pictures
from PIL import Image
from torch import nn
from torchvision import models

import ftexp
from ftexp.audit import find_leaks as module
from ftexp.errors import ConfigError, DataError
from ftexp.models.prefix import SplitError

SIGNATURES = {
    "compose": "(*overrides)",
    "find_leaks": "(paths, labels, splits, *, groups=None, times=None, features=True, geometry=None, "
    "cache=None, device='cpu')",
    "fine_tune": "(settings=(), *, folder=None, resume=False, score_test=True, observers=())",
    "load": "(what, *, device='auto', trust=False)",
    "param_groups": "(module, *, head_lr=0.001, backbone_lr=0.0005, block_decay=0.7, block_lrs=None, "
    "weight_decay=0.01, blocks=None, head=None)",
    "split_network": "(module, first_block, *, image_size=224, blocks=None, head=None)",
}
OF_CLASSES = {
    "Classifier.predict": "(self, images, *, top_k=1, batch_size=32, device=None)",
    "Classifier.stream": "(self, images, *, top_k=1, batch_size=32, device=None)",
    "Classifier.features": "(self, images, *, batch_size=32)",
    "Classifier.to": "(self, device)",
    "Predictions.to_pandas": "(self)",
}
CLASSES = {"Classifier", "Config", "Finding", "Prediction", "Predictions", "RunResult", "UserError"}


def signature(function: object) -> str:
    assert callable(function)
    bare = inspect.signature(function)
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in bare.parameters.values()]
    return str(bare.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def test_names_and_signatures() -> None:
    assert set(ftexp.__all__) == {"__version__", *SIGNATURES, *CLASSES}
    assert {name: signature(getattr(ftexp, name)) for name in SIGNATURES} == SIGNATURES
    for name, expected in OF_CLASSES.items():
        kind, _, method = name.partition(".")
        assert signature(getattr(getattr(ftexp, kind), method)) == expected
    assert all(inspect.isclass(getattr(ftexp, name)) for name in CLASSES)


def test_example_of_param_groups() -> None:
    network = models.resnet18(num_classes=3)
    optimizer = torch.optim.AdamW(ftexp.param_groups(network, head_lr=1e-3, backbone_lr=1e-4, block_decay=0.5))
    rates = {group["block"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx(
        {"stem": 6.25e-6, "layer1": 1.25e-5, "layer2": 2.5e-5, "layer3": 5e-5, "layer4": 1e-4, "head": 1e-3}
    )
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in network.parameters()}
    assert len(grouped) == len(list(network.parameters()))
    assert all((group["weight_decay"] > 0) == (group["params"][0].ndim > 1) for group in optimizer.param_groups)


def test_example_of_split_network() -> None:
    network = models.resnet18(num_classes=3).eval()
    prefix, suffix = ftexp.split_network(network, "layer4", image_size=64)
    images = torch.randn(2, 3, 64, 64)
    kept = prefix(images)  # once, for all epochs
    logits = suffix(kept)
    assert torch.equal(logits, network(images))
    logits.sum().backward()
    assert network.layer4[0].conv1.weight.grad is not None
    assert network.layer3[0].conv1.weight.grad is None


def test_example_of_find_leaks(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    for name, image in zip(("a.png", "b.png", "c.png"), noise, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    Image.fromarray(noise[0]).save(tmp_path / "copy of a.bmp")
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png", "copy of a.bmp")]
    findings = ftexp.find_leaks(paths, ["x", "y", "x", "x"], ["train", "train", "val", "test"], features=False)
    assert [(one.kind, one.severity, Path(one.path_a).name, Path(one.path_b).name) for one in findings] == [
        ("same_image", "fail", "a.png", "copy of a.bmp")
    ]
    assert not (tmp_path / "leaks.csv").exists()


def test_groups_are_looked_at(tmp_path: Path) -> None:
    pictures = sorted(draw_pictures(tmp_path).glob("*/*.jpg"))[:2]
    found = ftexp.find_leaks(pictures, ["a", "b"], ["train", "val"], groups=[7, 7], features=False)
    assert "group" in {one.kind for one in found}


def test_columns_of_a_filtered_table_are_taken_by_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_all", lambda samples, *_: (samples, []))
    draw_pictures(tmp_path)
    table = pd.DataFrame({"path": sorted(tmp_path.glob("*/*.jpg"))[:4], "label": list("abcd")}, index=[2, 0, 7, 1])
    table["split"], table["person"] = ["train", "val", "test", "train"], ["nan", "x", None, np.nan]
    taken = ftexp.find_leaks(
        table["path"],  # type: ignore[arg-type]
        table["label"],  # type: ignore[arg-type]
        table["split"],  # type: ignore[arg-type]
        groups=table["person"],  # type: ignore[arg-type]
        times=[3, pd.NA, pd.NaT, "2020-01-01"],
        features=False,
    )
    assert [(one.path, one.label, one.split, one.group, one.time) for one in taken] == [  # type: ignore[attr-defined]
        (str(table["path"].iloc[0]), "a", "train", "nan", "3"),
        (str(table["path"].iloc[1]), "b", "val", "x", None),
        (str(table["path"].iloc[2]), "c", "test", None, None),
        (str(table["path"].iloc[3]), "d", "train", None, "2020-01-01"),
    ]


@pytest.mark.parametrize(
    ("labels", "splits", "message"),
    [
        (["a"], ["train", "val"], "There are 2 paths and 1 labels. Give one for each image"),
        (["a", "b"], ["train", "dev"], "dev: a split has to be one of train, val, test"),
        (["a", "b"], ["train", "val"], r"2 of 2 files cannot be read as images: no\.png: there is no such file"),
    ],
)
def test_what_find_leaks_refuses(labels: list[str], splits: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ftexp.find_leaks(["no.png", "nor.png"], labels, splits, features=False)


def test_blocks_of_the_callers_own() -> None:
    blocks = {"bottom": ["stem"], "top": ["body", "token"]}
    groups = ftexp.param_groups(TinyNet(), blocks=blocks, head="fc", block_lrs={"bottom": 7.0})
    assert {group["block"]: group["lr"] for group in groups} == {"bottom": 7.0, "top": 5e-4, "head": 1e-3}
    prefix, suffix = ftexp.split_network(TinyNet().eval(), "top", blocks=blocks, head="fc", image_size=8)
    assert suffix(prefix(torch.zeros(2, 3, 8, 8))).shape == (2, 4)


def test_frozen_parameters_are_in_no_group() -> None:
    network = TinyNet()
    network.stem.requires_grad_(False)
    network.token.requires_grad_(False)
    assert {group["block"] for group in ftexp.param_groups(network)} == {"body", "head"}


class TwoRoads(nn.Module):
    """Two tensors enter its second block."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.join, self.fc = (
            nn.Conv2d(3, 4, 1),
            nn.Conv2d(3, 4, 1),
            nn.Bilinear(8, 8, 4),
            nn.Linear(4, 2),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        a, b = (layer(images).mean(3)[:, :, :8] for layer in (self.a, self.b))
        return self.fc(self.join(a, b).mean(1))


def test_what_cannot_be_cut_or_grouped_is_said() -> None:
    with pytest.raises(SplitError, match="2 tensors enter block 'join'"):
        ftexp.split_network(TwoRoads(), "join", blocks={"in": ["a", "b"], "join": ["join"]}, image_size=8)
    with pytest.raises(ConfigError, match="TinyNet has no block 'layer9'"):
        ftexp.split_network(TinyNet(), "layer9", image_size=8)
    with pytest.raises(ConfigError, match="no block 'layer9'"):
        ftexp.param_groups(TinyNet(), block_lrs={"layer9": 1.0})
    with pytest.raises(ConfigError, match=r"optimizer\.head_lr=0 is not allowed"):
        ftexp.param_groups(TinyNet(), head_lr=0)
    with pytest.raises(ConfigError, match="head='fcc': TinyNet has no such module"):
        ftexp.param_groups(TinyNet(), head="fcc")
    with pytest.raises(ConfigError, match="has no linear layer: give the path of its last layer as head"):
        ftexp.param_groups(nn.Sequential(nn.Conv2d(3, 3, 1)))
    with pytest.raises(ConfigError, match="Sequential has nothing but a head: name its blocks"):
        ftexp.param_groups(nn.Sequential(nn.Linear(2, 2)))
