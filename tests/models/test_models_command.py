"""``python -m ftexp.models``."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from torch import nn

from ftexp.models import __main__ as models_main
from ftexp.models.blocks import Block, Network
from ftexp.models.describe import block_rows
from ftexp.preprocessing import Preprocessing


def test_one_model_shows_blocks_head_transforms_and_stages(capsys: pytest.CaptureFixture[str]) -> None:
    models_main.main(["efficientnet_lite0"])
    shown = capsys.readouterr().out
    assert "tf_efficientnet_lite0 of timm; weights bundled; normalisation BatchNorm" in shown
    assert "short side to 256 px (bicubic), centre 224 x 224, normalised with mean (0.500, 0.500, 0.500)" in shown
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert rows["stage7"] == ["stage7", "12", "1,017,600", "BatchNorm", "blocks.6,", "conv_head,", "bn2"]
    assert "classifier: Linear(in_features=1280, out_features=1000, bias=True)" in shown
    stages = [line.split() for line in shown.partition("What each stage trains:")[2].splitlines()]
    assert ["head", "head", "head", "1,281,000", "27.5", "%"] in stages
    assert ["partial", "partial", "stage7", "head", "2,298,600", "49.4", "%"] in stages
    assert ["full", "full", "stem", "…", "head", "4,652,008", "100.0", "%"] in stages
    # Its BatchNorms have 21,008 channels in all, and its convolutions no bias.
    assert ["norms", "norms", "norms", "of", "stem", "…", "head", f"{1_281_000 + 2 * 21_008:,}", "28.4", "%"] in stages
    assert ["bias", "bias", "biases", "of", "stem", "…", "head", f"{1_281_000 + 21_008:,}", "28.0", "%"] in stages
    # Of rows and columns of its ungrouped kernels, 22,843 in all, rank 8.
    assert ["lora", "lora", "adapters", "of", "stem", "…", "head", f"{1_281_000 + 8 * 22_843:,}", "31.5", "%"] in stages


def test_a_network_without_batch_norm_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_main, "_options", lambda group: ["head"])  # each option of the stage is composed
    models_main.main(["timm", "model.name=vit_tiny_patch16_224", "model.weights=null"])
    shown = capsys.readouterr().out
    assert "weights none; normalisation LayerNorm\nIt has no BatchNorm: bn_policy has no effect." in shown
    assert "blocks11" in shown


def test_a_block_of_several_modules_names_each_kind_of_norm_once() -> None:
    modules = {
        "stem": nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4), nn.BatchNorm2d(4)),
        "stage": nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.BatchNorm2d(4)),
        "fc": nn.Linear(4, 2),
    }
    half = (0.5, 0.5, 0.5)
    network = Network(
        nn.Sequential(OrderedDict(modules)),
        [Block("all", ("stem", "stage"))],
        head="fc",
        preprocessing=Preprocessing(8, 8, "bilinear", half, half),
        name="tiny",
        num_classes=2,
    )
    assert [row["normalisation"] for row in block_rows(network)] == ["BatchNorm, GroupNorm", "none"]


@pytest.mark.slow
def test_the_catalogue_has_a_line_for_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    models_main.main([])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["efficientnet_lite0"].split()[1:6] == ["4,652,008", "224", "BatchNorm", "8:", "stem"]
    assert {"resnet50", "vit_l_16", "swin_v2_t", "maxvit_t", "regnet_y_16gf"} <= lines.keys()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["vit_b_17"], "There is no model=vit_b_17. Did you mean 'vit_b_16'?"),
        (["resnet18", "model.imag_size=64"], "There is no setting model.imag_size. Did you mean 'model.image_size'?"),
        (["timm"], "model.name has no value. Give one"),
        (["timm", "model.name=levit_128x"], "timm has no model 'levit_128x' (model.name). Did you mean 'levit_128'?"),
    ],
)
def test_a_mistake_is_one_message(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert models_main.main(argv) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"ftexp: {message}")
    assert "Traceback" not in shown.err
