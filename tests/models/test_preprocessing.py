"""The transforms are those that the publishers of the weights state, in every field of their descriptions."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torchvision
from conftest import Compose
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from timm.models import PretrainedCfg
from timm.models._registry import _model_pretrained_cfgs
from torch import nn
from torchvision.models import get_model_weights, list_models
from torchvision.transforms._presets import ImageClassification

from ftexp.config import AugmentConfig, ModelConfig
from ftexp.data.augment.batch_resampling import RESIZE_KERNELS
from ftexp.data.augment.transforms import Normalizer, eval_transform, train_transform
from ftexp.errors import ConfigError
from ftexp.models import timm_models, torchvision_models
from ftexp.models.catalogue import build_network
from ftexp.models.weights import Weights
from ftexp.preprocessing import Preprocessing
from ftexp.tracking.model_package import _load_pyfunc
from ftexp.training.checkpoints.checkpoint import checkpoint_content, write_checkpoint

# What is done with each field of timm's description of its weights.
USED_FOR_IMAGES = {"input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std"}
USED_FOR_THE_NETWORK = {
    "url": "where the weights are downloaded from, and their name in torch.hub's cache",
    "hf_hub_id": "the repository they are downloaded from",
    "hf_hub_filename": "their file in it",
    "architecture": "messages, and timm's own loading",
    "tag": "messages, model.weights",
    "custom_load": "timm's own loading, for the .npz files it is meant for",
    "fixed_input_size": "whether the network is told the image size when it is built",
    "num_classes": "timm's own loading leaves a head of another width out",
    "label_offset": "timm's own loading, of a head of the same width; ours is new in any case",
    "first_conv": "timm's own loading",
    "classifier": "the head",
}
UNUSED = {
    "file": "the user gives model.weights=FILE",
    "state_dict": "never set by timm",
    "source": "derived by timm",
    "test_input_size": "a larger size for evaluation alone; here training and evaluation see the same size",
    "test_crop_pct": "goes with test_input_size",
    "test_pool_size": "goes with test_input_size",
    "min_input_size": "the network itself is tried on the size that was asked for",
    "pool_size": "follows from the size of the images",
    **dict.fromkeys(("label_names", "label_descriptions"), "the classes are those of the data"),
    **dict.fromkeys(
        ("license", "description", "origin_url", "paper_name", "paper_ids", "notes"), "for readers, of no effect"
    ),
}

HALF = (0.5, 0.5, 0.5)
# Wider, higher, square, tiny, long and thin: (width, height).
SHAPES = [(300, 200), (201, 333), (224, 224), (30, 20), (400, 31), (7, 90), (225, 224)]
# Weights of every crop mode; squash with every share, border, and the usual ones with shares that do not divide evenly.
WEIGHTS = [
    "resnet50.a1_in1k",
    "tf_efficientnet_lite0.in1k",
    "mobilenetv3_small_100.lamb_in1k",
    "convnext_tiny.fb_in22k_ft_in1k_384",
    "eva02_tiny_patch14_336.mim_in22k_ft_in1k",
    "maxvit_tiny_tf_384.in1k",
    "dm_nfnet_f0.dm_in1k",
    "deepseek_vit_412m.deepseek_v4_1_flash",
]


def noise(width: int, height: int) -> Image.Image:
    """Noise over a gradient: a resize of another side, filter or rounding gives other bits."""
    pixels = np.random.default_rng(0).integers(0, 200, (height, width, 3)) + np.linspace(0, 55, width)[:, None]
    return Image.fromarray(pixels.astype(np.uint8))


def description(weights: str) -> dict[str, object]:
    found: dict[str, object] = _model_pretrained_cfgs[weights].to_dict()
    return found


def test_every_field_of_timms_descriptions_is_accounted_for() -> None:
    fields = {field.name for field in dataclasses.fields(PretrainedCfg)}
    assert fields == USED_FOR_IMAGES | set(USED_FOR_THE_NETWORK) | set(UNUSED)
    described = inspect.signature(create_transform).parameters.keys() & fields
    assert described <= USED_FOR_IMAGES
    assert set(resolve_data_config(pretrained_cfg=description(WEIGHTS[0]))) == USED_FOR_IMAGES


def test_every_value_in_timms_descriptions_is_one_that_is_known() -> None:
    cfgs = _model_pretrained_cfgs.values()
    assert {cfg.crop_mode for cfg in cfgs} == {"center", "squash", "border"}
    assert {cfg.interpolation for cfg in cfgs} == set(RESIZE_KERNELS)
    assert all(cfg.input_size[0] == 3 for cfg in cfgs)
    assert all(not isinstance(cfg.custom_load, str) for cfg in cfgs)
    assert all(cfg.file is None and cfg.state_dict is None and not cfg.label_offset for cfg in cfgs)


def test_every_field_of_torchvisions_transforms_is_accounted_for() -> None:
    """All are used but ``antialias``, which is True throughout, as Pillow's resize always is."""
    for name in list_models(module=torchvision.models):
        for member in get_model_weights(name):
            transforms = member.transforms()
            assert type(transforms) is ImageClassification, member
            own = {key for key in vars(transforms) if key not in vars(nn.Module())}
            assert own == {"crop_size", "resize_size", "mean", "std", "interpolation", "antialias"}
            assert (len(transforms.crop_size), len(transforms.resize_size), transforms.antialias) == (1, 1, True)
            about = {"num_params", "categories", "recipe", "license", "_metrics", "_ops", "_file_size", "_docs"}
            assert member.meta.keys() <= {*about, "min_size"}, "the network itself is tried on its images"


@pytest.mark.parametrize("image_size", [None, 98])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_evaluation_sees_the_bits_that_timms_own_transform_gives(weights: str, image_size: int | None) -> None:
    described = description(weights)
    args = {"img_size": image_size} if image_size else {}
    theirs = create_transform(**resolve_data_config(args, pretrained_cfg=described))
    preprocessing = timm_models.preprocessing(described).at(image_size)
    transform, normalizer = eval_transform(preprocessing), Normalizer(preprocessing)
    for shape in SHAPES:
        assert torch.equal(normalizer(transform(noise(*shape))), theirs(noise(*shape))), shape


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_every_share_and_mode_gives_timms_bits(mode: str) -> None:
    """Border with a share other than 1 is in no published weights; a share above 1 leaves black around the image."""
    for crop_pct in {cfg.crop_pct for cfg in _model_pretrained_cfgs.values()}:
        described = {"input_size": (3, 64, 64), "crop_mode": mode, "crop_pct": crop_pct, "mean": (0.1, 0.45, 0.9)}
        theirs = create_transform(**resolve_data_config(pretrained_cfg=described), normalize=False)
        transform = eval_transform(timm_models.preprocessing(described))
        for shape in SHAPES:
            assert torch.equal(transform(noise(*shape)), theirs(noise(*shape))), (crop_pct, shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_sees_the_bits_that_torchvisions_own_transform_gives(shape: tuple[int, int]) -> None:
    weights = get_model_weights("efficientnet_b0").DEFAULT
    config = ModelConfig("torchvision", "efficientnet_b0", head="classifier.1", blocks={"all": ["features"]})
    preprocessing = torchvision_models.preprocessing(config)
    seen = Normalizer(preprocessing)(eval_transform(preprocessing)(noise(*shape)))
    assert torch.equal(seen, weights.transforms()(noise(*shape)))


def test_the_three_modes_by_hand() -> None:
    """A picture of 20 x 10, black on its left half and white on its right, seen as a square of 10."""
    picture = Image.new("RGB", (20, 10))
    picture.paste((255, 255, 255), (10, 0, 20, 10))
    rows = {}
    for mode in ("center", "squash", "border"):
        transform = eval_transform(Preprocessing(10, 10, "bilinear", (0.4, 0.4, 0.4), HALF, mode))
        rows[mode] = transform(picture)[0]
    assert rows["center"].tolist() == [[0] * 5 + [255] * 5] * 10
    squashed = [0, 0, 0, 0, 0, 255, 255, 255, 255, 255]
    assert (rows["squash"].float() - torch.tensor(squashed)).abs().max() <= 64, "only where black meets white"
    assert rows["border"][[0, 1, 8, 9]].unique().tolist() == [102], "0.4 of 255 above and below"
    assert torch.equal(rows["border"][2:7], rows["squash"][:5])


def test_an_image_too_thin_to_fit_inside_keeps_one_pixel() -> None:
    transform = eval_transform(Preprocessing(8, 8, "bicubic", HALF, HALF, "border"))
    assert transform(Image.new("RGB", (900, 1), "white")).eq(255).any(dim=0).sum() == 8


def test_random_crops_are_the_same_for_every_mode_and_what_is_kept_for_evaluation_is_not() -> None:
    augment, picture = AugmentConfig(crop_scale=0.5), noise(60, 30)
    modes = [Preprocessing(8, 8, "bilinear", HALF, HALF, mode) for mode in ("center", "squash", "border")]
    assert len({train_transform(mode, augment).prepared_as for mode in modes}) == 1
    assert len({train_transform(mode, AugmentConfig(horizontal_flip=0.5)).prepared_as for mode in modes}) == 3
    kept = [eval_transform(mode) for mode in (*modes, Preprocessing(8, 8, "bilinear", (0.4, 0.5, 0.5), HALF, "border"))]
    assert len({transform.prepared_as for transform in kept}) == 4, "the colour of the border is in the pixels"
    assert len({transform(picture).numpy().tobytes() for transform in kept}) == 4


def test_a_size_that_is_no_square_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig("timm", "test_vit", weights=None, head=None)
    tall = dataclasses.replace(_model_pretrained_cfgs["test_vit"], input_size=(3, 192, 160))
    monkeypatch.setattr(timm_models, "pretrained_cfg_of", lambda _: tall.to_dict())
    with pytest.raises(ConfigError, match=r"192 x 160 pixels, .* model\.image_size, for example 160"):
        build_network(config, None, 2, None)
    assert build_network(config, None, 2, 160).preprocessing.image_size == 160


def test_the_hubs_own_file_is_read_where_timm_has_a_reader_for_another_format(tmp_path: Path) -> None:
    """timm reads .npz of many ViTs itself; the hub has them as safetensors."""
    config = ModelConfig("timm", "vit_tiny_patch16_224", head=None)
    assert timm_models.pretrained_cfg(config).custom_load
    source = timm.create_model("vit_tiny_patch16_224", depth=12)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    weights = Weights(tmp_path / "model.safetensors", "library", "vit")
    module, _ = timm_models.build(config, weights, 2, None)
    assert torch.equal(module.blocks[11].mlp.fc2.weight, source.blocks[11].mlp.fc2.weight)


def test_the_packaged_model_sees_images_as_training_did(tmp_path: Path, configure: Compose) -> None:
    config = configure("model=timm", "model.name=test_efficientnet", "model.weights=null")
    network = build_network(config.model, None, 2, 64)
    network.preprocessing = dataclasses.replace(network.preprocessing, crop_mode="squash")
    write_checkpoint(tmp_path / "best.pt", checkpoint_content(network, config, {"cat": 0, "dog": 1}))
    table = _load_pyfunc(str(tmp_path / "best.pt")).predict(pd.DataFrame({"image": [np.array(noise(90, 40))]}))
    seen = Normalizer(network.preprocessing)(eval_transform(network.preprocessing)(noise(90, 40)))
    with torch.inference_mode():
        expected = network.module.eval()(seen[None]).softmax(1)[0]
    assert table[["p(cat)", "p(dog)"]].values[0].tolist() == pytest.approx(expected.tolist())


def test_a_checkpoint_from_before_there_were_modes_is_center() -> None:
    values = Preprocessing(8, 10, "bilinear", HALF, HALF, "squash", 0.8).as_dict()
    assert Preprocessing(**{**values, "mean": HALF, "std": HALF}).crop_mode == "squash"
    old = {key: values[key] for key in ("image_size", "resize_size", "interpolation", "mean", "std")}
    assert Preprocessing(**old).crop_mode == "center"
    assert Preprocessing(**old).at(16).resize_size == 20
