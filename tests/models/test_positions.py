"""A file of weights at another image size: its positions are resampled, bit for bit as its library does it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from ftexp.config import ModelConfig
from ftexp.errors import ConfigError, WeightsError
from ftexp.models import torchvision_models
from ftexp.models.catalogue import build_network, locate_weights
from ftexp.models.loading import load_weights
from ftexp.models.timm_models import pretrained_cfg
from ftexp.models.torchvision_positions import resample_file, take_image_size
from ftexp.models.weights import Weights
from ftexp.models.weights_file import WeightsFile

slow = pytest.mark.slow
TABLE = "relative_position_bias_table"


def trained(name: str) -> nn.Module:
    """With other numbers in its tables than those it began with, which are 0 in some."""
    torch.manual_seed(0)
    module: nn.Module = timm.create_model(name)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.02)
    return module


def as_timm_loads(name: str, state: dict[str, torch.Tensor], image_size: int) -> dict[str, torch.Tensor]:
    overlay = {"state_dict": dict(state), "custom_load": False}
    loaded: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, img_size=image_size)
    return loaded.state_dict()


@pytest.mark.parametrize(
    ("name", "image_size", "table"),
    [
        ("test_vit", 96, "pos_embed"),
        ("test_vit3", 224, "pos_embed"),
        pytest.param("vit_tiny_patch16_224", 96, "pos_embed", marks=slow),
        pytest.param("vit_tiny_r_s16_p8_224", 320, "pos_embed", marks=slow),
        pytest.param("deit_tiny_distilled_patch16_224", 384, "pos_embed", marks=slow),
        pytest.param("flexivit_small", 192, "pos_embed", marks=slow),
        pytest.param("swin_tiny_patch4_window7_224", 128, f"layers.3.blocks.0.attn.{TABLE}", marks=slow),
        pytest.param("swinv2_cr_tiny_ns_224", 320, None, marks=slow),
        pytest.param("beit_base_patch16_224", 160, f"blocks.0.attn.{TABLE}", marks=slow),
        pytest.param("eva02_tiny_patch14_224", 336, "pos_embed", marks=slow),
        pytest.param("test_maxvit", 128, f"stages.0.blocks.0.attn_block.attn.rel_pos.{TABLE}", marks=slow),
        pytest.param("tnt_s_patch16_224", 160, "patch_pos", marks=slow),
        pytest.param("cait_xxs24_224", 224, None, marks=slow),
    ],
)
def test_the_tables_are_those_that_timm_makes(
    tmp_path: Path, name: str, image_size: int, table: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    state = trained(name).state_dict()
    expected = as_timm_loads(name, state, image_size)
    torch.save({"model": {f"module.{key}": tensor for key, tensor in state.items()}}, tmp_path / "mine.pth")
    config = ModelConfig("timm", name, weights=str(tmp_path / "mine.pth"), head=None)
    with caplog.at_level(logging.INFO, "ftexp"):
        network = build_network(config, locate_weights(config), 3, image_size)
    heads = network.heads
    for key, tensor in network.module.state_dict().items():
        assert key.startswith(heads) or torch.equal(tensor, expected[key]), key
    assert (table is None) or expected[table].shape != state[table].shape
    assert ("positions resampled for this image size" in caplog.text) is (table is not None)


def test_what_was_resampled_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(trained("test_vit").state_dict(), tmp_path / "mine.pth")
    config = ModelConfig("timm", "test_vit", weights=str(tmp_path / "mine.pth"), head=None, image_size=64)
    with caplog.at_level(logging.INFO, "ftexp"):
        build_network(config, locate_weights(config), 3, None)
    sizes = "pos_embed: 1 x 101 x 64 in the file, 1 x 17 x 64 in the network"
    assert f"positions resampled for this image size ({sizes})." in caplog.text


def test_a_file_of_another_network_is_still_refused(tmp_path: Path) -> None:
    """Another width, and another patch size, which timm itself would resample for its own files."""
    assert pretrained_cfg(ModelConfig("timm", "vit_tiny_patch16_224", head=None)).fixed_input_size
    torch.save(timm.create_model("test_vit3").state_dict(), tmp_path / "other.pth")
    config = ModelConfig("timm", "test_vit", weights=str(tmp_path / "other.pth"), head=None)
    with pytest.raises(WeightsError, match="does not fit the network"):
        build_network(config, locate_weights(config), 3, 96)
    patches = {**trained("test_vit").state_dict(), "patch_embed.proj.weight": torch.zeros(64, 3, 8, 8)}
    torch.save(patches, tmp_path / "patches.pth")
    config = ModelConfig("timm", "test_vit", weights=str(tmp_path / "patches.pth"), head=None)
    with pytest.raises(WeightsError, match=r"pos_embed, patch_embed\.proj\.weight have another shape"):
        build_network(config, locate_weights(config), 3, 96)


def small_vit(image_size: int, seed: int) -> VisionTransformer:
    torch.manual_seed(seed)
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 16, "num_classes": 3}
    return VisionTransformer(image_size=image_size, patch_size=8, **sizes).eval()


@pytest.mark.parametrize("image_size", [16, 32, 48])
def test_torchvisions_transformers_are_resampled_as_torchvision_does_it(
    image_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    state = small_vit(32, seed=0).state_dict()
    expected = small_vit(image_size, seed=1)
    expected.load_state_dict(interpolate_embeddings(image_size, 8, OrderedDict(state)))
    images = torch.randn(2, 3, image_size, image_size)
    own = small_vit(32, seed=0)
    take_image_size(own, image_size, "small")
    assert torch.equal(own(images), expected(images))

    other = small_vit(64, seed=2)
    take_image_size(other, image_size, "small")
    with caplog.at_level(logging.INFO, "ftexp"):
        load_weights(other, resample_file(other, WeightsFile("mine.pth", dict(state))), ("heads.head",), 3)
    other.heads.load_state_dict(expected.heads.state_dict())
    assert torch.equal(other(images), expected(images))
    sizes = f"encoder.pos_embedding: 17 in the file, {1 + (image_size // 8) ** 2} in the network"
    assert (f"positions resampled for this image size ({sizes})" in caplog.text) == (image_size != 32)


def test_a_file_for_torchvisions_transformer_is_resampled_for_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_models, "get_model", lambda *_, **__: small_vit(32, seed=0))
    state = small_vit(64, seed=1).state_dict()
    config = ModelConfig(
        "torchvision", "vit_b_32", weights="mine.pth", head="heads.head", blocks={"embed": ["conv_proj"]}
    )
    file = WeightsFile("mine.pth", {f"module.{name}": tensor for name, tensor in state.items()})
    module, _ = torchvision_models.build(config, Weights(Path("mine.pth"), "file", "mine.pth"), 3, 48, file)
    assert isinstance(module, VisionTransformer)
    expected = interpolate_embeddings(48, 8, OrderedDict(state))["encoder.pos_embedding"]
    assert torch.equal(module.encoder.pos_embedding, expected)


def test_what_is_no_grid_of_positions_of_torchvision_is_left_for_the_message() -> None:
    module = small_vit(32, seed=0)
    for shape in ((1, 18, 16), (1, 10, 8), (10, 16)):
        file = WeightsFile("mine.pth", {"encoder.pos_embedding": torch.zeros(shape)})
        assert resample_file(module, file) is file
    take_image_size(nn.Linear(2, 2), 96, "linear")
    with pytest.raises(
        ConfigError, match=r"small cannot take images of 50 x 50 .* patches of 8 pixels\. Set model\.im"
    ):
        take_image_size(module, 50, "small")


def test_positions_that_timm_does_not_resample_are_one_message(tmp_path: Path) -> None:
    torch.save(timm.create_model("levit_128s").state_dict(), tmp_path / "levit.pth")
    config = ModelConfig("timm", "levit_128s", weights=str(tmp_path / "levit.pth"), head=None)
    with pytest.raises(WeightsError, match=r"timm does not resample the positions of levit_128s \(.*196 in the file"):
        build_network(config, locate_weights(config), 3, 160)
    published = Weights(tmp_path / "levit.pth", "library", "levit_128s of timm")
    with pytest.raises(WeightsError, match=r"levit_128s of timm cannot be used at this image size: .*size mismatch"):
        build_network(config, published, 3, 160)
