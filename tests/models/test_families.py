"""What holds for every architecture, tried on one of each family: random weights, small images.

A thin slice runs always, all of them with ``-m slow``.
"""

from __future__ import annotations

import copy
import io

import pytest
import torch
from conftest import make_phase
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from ftexp.config import ModelConfig, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.finetune.decay import decay_rules
from ftexp.finetune.freezing import open_blocks, set_train_mode
from ftexp.finetune.optimizers import build_optimizer
from ftexp.finetune.param_groups import build_param_groups
from ftexp.models.blocks import HEAD, Network
from ftexp.models.catalogue import build_network
from ftexp.models.prefix import SplitError, split

NUM_CLASSES = 3

# Architecture -> side of the images in pixels.
TORCHVISION = {
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "wide_resnet50_2": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "convnext_tiny": 32,
    "regnet_y_400mf": 32,
    "densenet121": 32,
    "vgg16_bn": 32,
    "shufflenet_v2_x1_0": 32,
    "mnasnet1_0": 32,
    "vit_b_32": 224,
    "swin_t": 64,
    "swin_v2_t": 64,
    "maxvit_t": 224,
}
TIMM = {
    # BatchNorm
    "resnet10t": 32,
    "resnest14d": 64,
    "dla46_c": 64,
    "regnety_002": 32,
    "mobilenetv3_small_050": 32,
    "ghostnet_100": 32,
    "repvgg_a0": 32,
    "mobileone_s0": 32,
    "rexnet_100": 32,
    "hgnetv2_b0": 64,
    "starnet_s1": 64,
    "fastvit_t8": 64,
    "visformer_tiny": 224,
    "levit_128s": 224,
    "efficientvit_b0": 64,
    # GroupNorm; none at all
    "resnetv2_50x1_bit": 32,
    "poolformer_s12": 64,
    "nf_regnet_b0": 64,
    "resmlp_12_224": 224,
    # LayerNorm: convolutions, plain transformers with and without a class token, hybrids, stages, MLPs
    "convnext_atto": 64,
    "convnextv2_atto": 64,
    "edgenext_xx_small": 64,
    "mambaout_femto": 64,
    "vit_tiny_patch16_224": 64,
    "vit_relpos_small_patch16_224": 64,
    "deit_tiny_distilled_patch16_224": 64,
    "eva02_tiny_patch14_224": 56,
    "cait_xxs24_224": 64,
    "xcit_nano_12_p16_224": 64,
    "convit_tiny": 64,
    "vit_tiny_r_s16_p8_224": 64,
    "mobilevit_xxs": 64,
    "coatnet_nano_rw_224": 224,
    "swin_tiny_patch4_window7_224": 224,
    "pvt_v2_b0": 64,
    "pit_ti_224": 224,
    "tiny_vit_5m_224": 224,
    "caformer_s18": 64,
    "mixer_s32_224": 64,
    "gmlp_ti16_224": 64,
}
THIN = {"mobilenet_v3_small", "mobilenetv3_small_050", "vit_tiny_patch16_224"}

# Boundaries that more than one tensor crosses: two heads, each on its own token or behind its own norm; class tokens
# that travel beside the image's.
TWO_PATHS = {
    ("levit_128s", HEAD),
    ("deit_tiny_distilled_patch16_224", HEAD),
    ("pit_ti_224", "transformers0"),
    ("pit_ti_224", "transformers1"),
    ("pit_ti_224", "transformers2"),
}


def architectures() -> list[object]:
    named = [("torchvision", name, size) for name, size in TORCHVISION.items()]
    named += [("timm", name, size) for name, size in TIMM.items()]
    return [pytest.param(*case, id=case[1], marks=() if case[1] in THIN else pytest.mark.slow) for case in named]


def build(library: str, name: str, size: int) -> Network:
    register_schema()
    option, extra = (name, []) if library == "torchvision" else ("timm", [f"model.name={name}"])
    with initialize_config_dir(str(conf_dir())):
        overrides = ["model.weights=null", f"model.image_size={size}", *extra]
        config = OmegaConf.to_object(compose(f"model/{option}", overrides=overrides).model)
    assert isinstance(config, ModelConfig)
    return build_network(config, None, NUM_CLASSES, None)


@pytest.mark.parametrize(("library", "name", "size"), architectures())
def test_every_family(library: str, name: str, size: int) -> None:
    torch.manual_seed(0)
    network = build(library, name, size)
    images = torch.randn(2, 3, size, size)
    network.module.eval()
    with torch.no_grad():
        assert network.module(images).shape == (2, NUM_CLASSES)

    check_partition(network)
    check_decay(network)
    check_halves(network, images)
    check_stages(network, images)
    check_checkpoint(network, build(library, name, size), images)


def check_partition(network: Network) -> None:
    module = network.module
    tensors = [n for n, _ in (*module.named_parameters(), *module.named_buffers())]
    claimed = [n for block in network.names for n in (*network.parameters(block), *network.buffers(block))]
    assert sorted(claimed) == sorted(tensors)
    assert len(network.blocks) >= 3
    assert all(network.parameters(block) for block in network.names)


def check_decay(network: Network) -> None:
    rules = decay_rules(network.module)
    marks = ("bias", "token", "pos_embed", "position_bias_table", "layer_scale", "gamma", "beta", "alpha")
    for path, layer in network.module.named_modules():
        norm = "norm" in type(layer).__name__.lower()
        for leaf, parameter in layer.named_parameters(recurse=False):
            full = f"{path}.{leaf}" if path else leaf
            if norm or parameter.ndim < 2 or any(mark in leaf for mark in marks):
                assert not rules[full].decays, full
            elif leaf == "weight" and type(layer) in (nn.Linear, nn.Conv2d):
                assert rules[full].decays, full


def check_halves(network: Network, images: torch.Tensor) -> None:
    blocks = network.names[1:]
    with torch.no_grad():
        whole = network.module(images)
        for block in dict.fromkeys((blocks[0], blocks[len(blocks) // 2], blocks[-2], blocks[-1])):
            if (network.name, block) in TWO_PATHS:
                with pytest.raises(SplitError, match=r"later blocks need more than one tensor|2 tensors enter"):
                    split(network, block)
                continue
            prefix, suffix = split(network, block)
            assert torch.equal(suffix(prefix(images)), whole), block


def check_stages(network: Network, images: torch.Tensor) -> None:
    """Two steps move what has a gradient and nothing else; statistics move in open blocks under train, else never."""
    for learning, policy in (((HEAD,), "train"), (network.names[-2:], "train"), (network.names, "eval")):
        phase = make_phase(*learning, policy=policy, head_lr=0.01, backbone_lr=0.01, block_decay=1.0)
        open_blocks(network, phase)
        optimizer = build_optimizer(phase.optimizer, build_param_groups(network, phase), torch.device("cpu"))
        parameters = {n: p.detach().clone() for n, p in network.module.named_parameters()}
        buffers = {n: b.clone() for n, b in network.module.named_buffers()}
        moving: set[str] = set()
        reached: set[str] = set()
        for _ in range(2):
            set_train_mode(network, phase)
            loss = nn.functional.cross_entropy(network.module(images), torch.tensor([0, 2]))
            optimizer.zero_grad()
            loss.backward()
            largest = {n: p.grad.abs().max() for n, p in network.module.named_parameters() if p.grad is not None}
            reached |= {network.block_of(n) for n, gradient in largest.items() if gradient > 0}
            moving |= {n for n, gradient in largest.items() if gradient > 1e-6}  # Adam ignores what is below its eps
            optimizer.step()
        moved = {n for n, p in network.module.named_parameters() if not torch.equal(p, parameters[n])}
        opened = {n for block in learning for n in network.parameters(block)}
        assert moving <= moved <= opened, (learning, policy)
        assert reached == set(learning), (learning, policy)
        drifted = {n for n, b in network.module.named_buffers() if not torch.equal(b, buffers[n])}
        may_drift = {n for block in learning for n in network.buffers(block)} if policy == "train" else set()
        assert drifted <= may_drift, (learning, policy)
        optimizer.zero_grad()


def check_checkpoint(network: Network, fresh: Network, images: torch.Tensor) -> None:
    file = io.BytesIO()
    torch.save(network.module.state_dict(), file)
    file.seek(0)
    fresh.module.load_state_dict(torch.load(file, weights_only=True))
    for loaded in (network, fresh):
        loaded.module.eval()
    with torch.no_grad():
        assert torch.equal(fresh.module(images), copy.deepcopy(network).module(images))
