"""ONNX Runtime gives what torch gives for the frozen blocks, or says why it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import TinyNet
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ftexp.models import onnx_prefix
from ftexp.models.blocks import Block, Network
from ftexp.models.depth_head import add_taps
from ftexp.models.onnx_prefix import ExportError, OnnxPrefix, export_prefix
from ftexp.models.prefix import Prefix, split
from ftexp.models.taps import find_taps
from ftexp.preprocessing import Preprocessing

CHANNELS_LAST = torch.channels_last


def wrap(module: nn.Module, blocks: dict[str, list[str]], head: str = "fc") -> Network:
    preprocessing = Preprocessing(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    named = [Block(name, tuple(paths)) for name, paths in blocks.items()]
    return Network(module.eval(), named, head=head, preprocessing=preprocessing, name="net", num_classes=4)


def convolutions() -> Network:
    network = tiny()
    network.module.to(memory_format=CHANNELS_LAST)
    return network


def transformer() -> Network:
    torch.manual_seed(0)
    module = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4)
    layers = [f"encoder.layers.encoder_layer_{i}" for i in range(2)]
    blocks = {"patches": ["conv_proj", "class_token", "encoder.pos_embedding", "encoder.dropout"]}
    return wrap(module, blocks | {"first": layers[:1], "second": [layers[1], "encoder.ln"]}, "heads.head")


def tiny(module: nn.Module | None = None) -> Network:
    torch.manual_seed(0)
    return wrap(module or TinyNet(), {"stem": ["stem"], "body": ["body", "token"]})


def tapped() -> Network:
    network = tiny()
    return add_taps(network, find_taps(network))[0]


def both(network: Network, block: str) -> tuple[Prefix, OnnxPrefix]:
    prefix, _ = split(network, block)
    assert isinstance(prefix, Prefix)
    return prefix, OnnxPrefix(*export_prefix(network, prefix))


@pytest.mark.parametrize(
    ("build", "block"),
    [(convolutions, "body"), (convolutions, "head"), (transformer, "second"), (transformer, "head"), (tapped, "head")],
)
def test_activations_of_any_number_of_images_agree_with_torch(build: Callable[[], Network], block: str) -> None:
    network = build()
    prefix, written = both(network, block)
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 32, 32).contiguous(memory_format=CHANNELS_LAST)
        expected, found = prefix(images), written(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_they_have_the_memory_layout_that_the_rest_of_the_network_expects() -> None:
    network = convolutions()
    prefix, written = both(network, "body")
    images = torch.randn(4, 3, 32, 32).contiguous(memory_format=CHANNELS_LAST)
    assert written(images).stride() == prefix(images).stride()
    assert written(images).is_contiguous(memory_format=CHANNELS_LAST)
    # Images in the other format are the same images.
    torch.testing.assert_close(written(images.contiguous()), written(images), rtol=0, atol=0)


def test_modes_and_random_numbers_stay_as_they_are() -> None:
    network = tiny()
    network.module.body.train()
    fused, before = torch.backends.mha.get_fastpath_enabled(), torch.get_rng_state()
    both(network, "body")
    assert [network.module.body.training, network.module.stem.training] == [True, False]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.backends.mha.get_fastpath_enabled() == fused


class Odd(TinyNet):
    """Its frozen block has an operator that ONNX lacks."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(torch.special.i1(images))


class Counting(TinyNet):
    """Its frozen block has the number of images as a number, which an exported file then has from the trial batch."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * float(len(images)))


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Odd, r"^torch cannot export it \(.*special_i1"),
        (Counting, r"^its outputs differ by .* of the largest, and 1e-04"),
    ],
)
def test_a_network_that_cannot_be_exported_is_refused_in_one_line(
    module: type[nn.Module], why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    network = tiny(module())
    with pytest.raises(ExportError, match=why) as refused:
        both(network, "head" if module is Odd else "body")
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", ""), "the exporter prints its whole graph"


def test_what_onnx_runtime_cannot_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_prefix, "_exported", lambda *_: b"no file")
    with pytest.raises(ExportError, match="ONNX Runtime cannot run it"):
        both(tiny(), "body")


def test_outputs_that_are_not_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_prefix, "_difference", lambda *_: float("nan"))
    with pytest.raises(ExportError, match="its outputs differ by nan"):
        both(tiny(), "body")
