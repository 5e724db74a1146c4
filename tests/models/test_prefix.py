"""Both halves of a network together are the network, to the bit, and only the suffix learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import densenet121, resnet18

from ftexp.errors import ConfigError
from ftexp.models.blocks import Block, Network
from ftexp.models.prefix import SplitError, split
from ftexp.preprocessing import Preprocessing

RESNET = {"stem": ["conv1", "bn1"], **{f"layer{i}": [f"layer{i}"] for i in range(1, 5)}}


def wrap(module: nn.Module, blocks: dict[str, list[str]], head: str, image_size: int = 32) -> Network:
    preprocessing = Preprocessing(image_size, image_size, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    named = [Block(name, tuple(paths)) for name, paths in blocks.items()]
    return Network(module, named, head=head, preprocessing=preprocessing, name="net", num_classes=4)


@pytest.fixture(scope="module")
def resnet() -> Network:
    torch.manual_seed(0)
    return wrap(resnet18(num_classes=4).eval(), RESNET, "fc")


@pytest.mark.parametrize("block", ["stem", "layer1", "layer3", "head"])
@pytest.mark.parametrize("batch", [1, 5])
def test_halves_equal_the_whole_to_the_bit(resnet: Network, block: str, batch: int) -> None:
    prefix, suffix = split(resnet, block)
    images = torch.randn(batch, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(suffix(prefix(images)), resnet.module(images))


def test_activations_are_those_that_enter_the_block(resnet: Network) -> None:
    images = torch.randn(2, 3, 32, 32)
    assert split(resnet, "layer3")[0](images).shape == (2, 128, 4, 4)
    # What holds no tensors runs in the prefix: the head's activations are pooled.
    assert split(resnet, "head")[0](images).shape == (2, 512)


def test_memory_format_is_kept_and_restored() -> None:
    network = wrap(resnet18(num_classes=4).eval().to(memory_format=torch.channels_last), RESNET, "fc")
    images = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    prefix, suffix = split(network, "layer3")
    activations = prefix(images)
    assert activations.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        # A cache may hand them over in another layout: the suffix puts them back.
        assert torch.equal(suffix(activations.contiguous()), network.module(images))


def test_the_suffix_trains_as_the_whole_does(resnet: Network) -> None:
    """Under train() with the prefix frozen: same loss, same gradients, same running statistics, nothing below."""
    module = resnet.module
    prefix, suffix = split(resnet, "layer4")
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    learning = {name: p for block in ("layer4", "head") for name, p in resnet.parameters(block).items()}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in learning)
    module.train()
    for block in ("stem", "layer1", "layer2", "layer3"):
        for part in resnet.modules(block):
            part.eval()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}

    def step(logits: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        nn.functional.cross_entropy(logits, labels).backward()
        gradients = {name: p.grad.clone() for name, p in learning.items() if p.grad is not None}
        statistics = {name: buffer.clone() for name, buffer in module.named_buffers()}
        module.zero_grad()
        for name, buffer in module.named_buffers():
            buffer.copy_(before[name])
        return gradients, statistics

    gradients, statistics = step(module(images))
    suffix_gradients, suffix_statistics = step(suffix(prefix(images)))

    assert suffix_gradients.keys() == learning.keys()
    assert all(torch.equal(suffix_gradients[name], gradients[name]) for name in learning)
    assert all(torch.equal(suffix_statistics[name], statistics[name]) for name in statistics)
    assert not torch.equal(statistics["layer4.0.bn1.running_mean"], before["layer4.0.bn1.running_mean"])
    assert torch.equal(statistics["layer3.0.bn1.running_mean"], before["layer3.0.bn1.running_mean"])
    assert all(p.grad is None for block in ("stem", "layer3") for p in resnet.parameters(block).values())
    module.requires_grad_(True).eval()


def test_splitting_leaves_modes_flags_and_random_state_alone(resnet: Network) -> None:
    resnet.module.train()
    resnet.module.layer2.eval()
    resnet.module.layer3.requires_grad_(False)
    state = torch.get_rng_state()
    split(resnet, "layer2")
    assert resnet.module.training
    assert not resnet.module.layer2.training
    assert [p.requires_grad for p in resnet.module.layer3.parameters()] == [False] * 15
    assert resnet.module.conv1.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    resnet.module.requires_grad_(True).eval()


def test_stand_ins_that_are_written_into_get_memory() -> None:
    """DenseNet applies ReLU in place, outside of any module, to what its features return."""
    body = [f"features.denseblock{i}" for i in (1, 2, 3, 4)] + [f"features.transition{i}" for i in (1, 2, 3)]
    blocks = {"stem": ["features.conv0", "features.norm0"], "body": [*body, "features.norm5"]}
    network = wrap(densenet121(num_classes=4).eval(), blocks, "classifier")
    prefix, suffix = split(network, "head")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(suffix(prefix(images)), network.module(images))


class TwoPaths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.body = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        return self.fc((features + self.body(features)).mean(dim=(2, 3)))


class PairPath(TwoPaths):
    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        bilinear = nn.functional.bilinear
        mixed = bilinear(features.flatten(2).mean(2), self.body(features).flatten(2).mean(2), torch.ones(4, 4, 4))
        return self.fc(mixed)


class LateParameter(TwoPaths):
    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(images) * self.scale).mean(dim=(2, 3)))


class Uncalled(TwoPaths):
    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images).mean(dim=(2, 3))
        return nn.functional.linear(features, self.fc.weight, self.fc.bias)


BLOCKS = {"stem": ["stem"], "body": ["body", "scale"]}


@pytest.mark.parametrize(
    ("module", "block", "reason"),
    [
        (TwoPaths(), "body", "later blocks need more than one tensor"),
        (PairPath(), "body", "later blocks need more than one tensor"),
        (LateParameter(), "body", "earlier blocks use its parameters"),
        (Uncalled(), "body", "calls no module of block 'body' or of those after it"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(module: nn.Module, block: str, reason: str) -> None:
    network = wrap(module, BLOCKS, "fc", image_size=8)
    flags = [p.requires_grad for p in module.parameters()]
    with pytest.raises(SplitError, match=reason):
        split(network, block)
    assert [p.requires_grad for p in module.parameters()] == flags


def test_a_cut_behind_the_meeting_of_two_paths_holds() -> None:
    network = wrap(TwoPaths().eval(), BLOCKS, "fc", image_size=8)
    prefix, suffix = split(network, "head")
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(suffix(prefix(images)), network.module(images))


def test_an_unknown_block_is_a_users_mistake(resnet: Network) -> None:
    with pytest.raises(ConfigError, match="no block 'layer5'"):
        split(resnet, "layer5")
