"""Where the outputs of blocks are taken, and what they are averaged over."""

from __future__ import annotations

import pytest
import torch
from conftest import TinyNet
from torch import Tensor, nn
from torchvision.models import resnet18

from ftexp.models.blocks import Block, Network, Tap
from ftexp.models.taps import TapError, find_taps
from ftexp.preprocessing import Preprocessing


def wrap(module: nn.Module, blocks: dict[str, list[str]], head: str = "fc", image_size: int = 8) -> Network:
    preprocessing = Preprocessing(image_size, image_size, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    named = [Block(name, tuple(paths)) for name, paths in blocks.items()]
    return Network(module, named, head=head, preprocessing=preprocessing, name="net", num_classes=4)


class Laid(nn.Module):
    """Two blocks, between which the activations have a layout of their own."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 2, stride=2)
        self.second = nn.Linear(16 if layout == "BCN" else 5, 6)
        self.fc = nn.Linear(6, 4)
        self.layout = layout

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)  # [B, 5, 4, 4]
        between = {
            "BHWC": lambda: maps.permute(0, 2, 3, 1),
            "BNC": lambda: maps.flatten(2).transpose(1, 2),
            "BC": lambda: maps.mean(dim=(2, 3)),
            "NBC": lambda: maps.flatten(2).permute(2, 0, 1),
            "BGHWC": lambda: maps.permute(0, 2, 3, 1)[:, None],
            "BHwC": lambda: maps.permute(0, 2, 3, 1)[:, :, :2],
        }[self.layout]()
        after = self.second(between).flatten(1, -2) if self.layout != "BC" else self.second(between)[:, None]
        pooled = after.mean(dim=0 if self.layout == "NBC" else 1)
        return self.fc(pooled if pooled.shape[0] == images.shape[0] else pooled.expand(images.shape[0], -1))


def test_every_block_but_the_last_has_a_tap_where_its_output_enters_the_next() -> None:
    blocks = {"stem": ["conv1", "bn1"], **{f"layer{i}": [f"layer{i}"] for i in range(1, 5)}}
    network = wrap(resnet18(num_classes=4), blocks, image_size=32)
    assert find_taps(network) == (
        Tap("stem", "layer1", 0, (2, 3), 64),
        Tap("layer1", "layer2", 0, (2, 3), 64),
        Tap("layer2", "layer3", 0, (2, 3), 128),
        Tap("layer3", "layer4", 0, (2, 3), 256),
    )
    assert network.module.training
    assert not any(module._forward_pre_hooks for module in network.module.modules())


@pytest.mark.parametrize(("layout", "over"), [("BHWC", (1, 2)), ("BNC", (1,)), ("BC", ())])
def test_the_average_is_over_places_in_every_layout(layout: str, over: tuple[int, ...]) -> None:
    module = Laid(layout)
    (tap,) = find_taps(wrap(module, {"first": ["first"], "second": ["second"]}))
    assert tap == Tap("first", "second", 0, over, 5)
    images, seen = torch.randn(2, 3, 8, 8), []
    module.second.register_forward_pre_hook(lambda _, args: seen.append(tap.pooled(args, {})))
    module(images)
    torch.testing.assert_close(seen[0], module.first(images).mean(dim=(2, 3)))


@pytest.mark.parametrize("layout", ["NBC", "BGHWC", "BHwC"])
def test_other_layouts_are_refused(layout: str) -> None:
    with pytest.raises(TapError, match=r"the output of block first of net, 1?\d? ?x?.*is none of \[B, C, H, H\]"):
        find_taps(wrap(Laid(layout), {"first": ["first"], "second": ["second"]}))


class Cubes(nn.Module):
    """Maps [B, 4, 4, 4] enter the second block, and [B, H, W, C] or [B, C, H, W] with 6 channels the third."""

    def __init__(self, *, channels_last: bool) -> None:
        super().__init__()
        self.first, self.fc, self.channels_last = nn.Conv2d(3, 4, 2, stride=2), nn.Linear(6, 4), channels_last
        self.second, self.third = (
            (nn.Linear(4, 6), nn.Linear(6, 6)) if channels_last else (nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 1))
        )

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        maps = self.third(self.second(maps.permute(0, 2, 3, 1) if self.channels_last else maps))
        return self.fc(maps.mean(dim=(1, 2) if self.channels_last else (2, 3)))


@pytest.mark.parametrize(("channels_last", "over"), [(True, (1, 2)), (False, (2, 3))])
def test_as_many_channels_as_rows_are_told_apart_by_the_other_blocks(
    channels_last: bool, over: tuple[int, ...]
) -> None:
    module = Cubes(channels_last=channels_last)
    taps = find_taps(wrap(module, {name: [name] for name in ("first", "second", "third")}))
    assert taps == (Tap("first", "second", 0, over, 4), Tap("second", "third", 0, over, 6))
    message = r"first of net, \d x 4 x 4 x 4, can be \[B, C, H, H\] or \[B, H, H, C\], and no other block's tells"
    with pytest.raises(TapError, match=message):
        find_taps(wrap(module, {"first": ["first"], "second": ["second", "third"]}))


class Backwards(TinyNet):
    def forward(self, images: Tensor) -> Tensor:
        body = self.body(torch.nn.functional.pad(images, (0, 0, 0, 0, 0, 1)))
        return self.fc(self.stem(body[:, :3]).mean(dim=(2, 3)).repeat(1, 2)[:, :6] + self.token)


class Skipping(nn.Module):
    """The second block also gets what entered the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 3, 1), nn.Bilinear(3, 3, 6), nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.second(images.mean(dim=(2, 3)), self.first(images).mean(dim=(2, 3))))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.second(self.second(self.first(images))).mean(dim=(2, 3)))


def test_blocks_that_do_not_pass_one_tensor_on_are_refused() -> None:
    with pytest.raises(TapError, match="2 tensors pass from block first of net to the next instead of one"):
        find_taps(wrap(Skipping(), {"first": ["first"], "second": ["second"]}))
    with pytest.raises(TapError, match="net enters its block second more than once"):
        find_taps(wrap(Twice(), {"first": ["first"], "second": ["second"]}))
    with pytest.raises(TapError, match="net does not run its blocks one after the other"):
        find_taps(wrap(Backwards(), {"stem": ["stem"], "middle": ["body.0"], "body": ["body.1", "body.3", "token"]}))


def test_a_tap_is_plain_data() -> None:
    tap = Tap("stem", "layer1", 0, (2, 3), 64)
    assert Tap.from_dict(tap.as_dict()) == tap
