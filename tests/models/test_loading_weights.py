"""Loading into a network: what a file may differ in, what is refused, and what is said."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ftexp.errors import WeightsError
from ftexp.models.loading import load_in_order, load_weights
from ftexp.models.weights_file import WeightsFile


class Net(nn.Module):
    def __init__(self, num_classes: int = 3, width: int = 4, depth: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(*(nn.Linear(4, 4) for _ in range(depth - 1)), nn.Linear(2, width))
        self.norm = nn.BatchNorm1d(width)
        self.fc = nn.Linear(width, num_classes)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.body.register_buffer("index", torch.arange(2), persistent=False)


def file(state: dict[str, Tensor], **facts: object) -> WeightsFile:
    return replace(WeightsFile("mine.pth", dict(state)), **facts)


def load(target: nn.Module, state: dict[str, Tensor], ours: int | Sequence[str] = 3, **facts: object) -> None:
    load_weights(target, file(state, **facts), ("fc",), ours)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "ftexp")
    return caplog


@pytest.mark.parametrize("num_theirs", [3, 1000])
def test_the_head_of_a_file_without_class_names_is_never_taken(said: pytest.LogCaptureFixture, num_theirs: int) -> None:
    source, target = Net(num_classes=num_theirs), Net()
    head = target.fc.weight.clone()
    load(target, source.state_dict(), ("a", "b", "c"))
    assert torch.equal(target.body[0].weight, source.body[0].weight)
    assert torch.equal(target.fc.weight, head)
    assert said.messages == [
        "weights mine.pth: 8 tensors loaded; the head (fc) is newly initialised: the file does not name its classes."
    ]


def test_rows_of_known_classes_are_loaded_and_all_is_said_in_one_line(said: pytest.LogCaptureFixture) -> None:
    source, target = Net(2), Net(3)
    state = {f"model.{name}": tensor for name, tensor in source.state_dict().items()} | {"loss.weight": torch.ones(2)}
    facts = {"classes": ("cat", "dog"), "key": "state_dict_ema", "passed_over": ("state_dict",)}
    load(target, state, ("ape", "dog", "eel"), **facts)
    assert torch.equal(target.fc.weight[1], source.fc.weight[1])
    assert said.messages == [
        "weights mine.pth: 10 tensors of its state_dict_ema loaded; the head (fc) keeps its rows for dog, matched by "
        "class name; new rows for ape, eel; left out: cat; not used: state_dict; "
        "left out: 1 tensors of other parts, such as loss.weight."
    ]


def test_missing_and_unexpected_names_are_reported_together() -> None:
    state = dict(Net().state_dict())
    state["trunk.weight"] = state.pop("body.0.weight")
    with pytest.raises(
        WeightsError,
        match=r"missing in the file: body\.0\.weight\n +unexpected in the file: trunk\.weight\n.*names resnet18",
    ):
        load(Net(), state, made_for="resnet18")


def test_a_deeper_network_of_the_same_family_is_refused() -> None:
    """All tensors of the shallow one are there and fit; the others belong to its own parts."""
    shallow = nn.ModuleDict({"body": nn.Sequential(nn.Linear(4, 4)), "fc": nn.Linear(4, 2)})
    deep = nn.ModuleDict({"body": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), "fc": nn.Linear(4, 2)})
    with pytest.raises(WeightsError, match=r"missing in the file: nothing\n +unexpected in the file: body\.1\.weight"):
        load(shallow, deep.state_dict())
    with pytest.raises(WeightsError, match=r"missing in the file: body\.1\.weight, body\.1\.bias\n"):
        load(deep, shallow.state_dict())


def test_another_width_is_reported_by_shape() -> None:
    with pytest.raises(
        WeightsError, match=r"body\.0\.weight is \(5, 2\) in the file and \(4, 2\) in the net.*made for"
    ):
        load(Net(), Net(width=5).state_dict())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "vit.embeddings.patch_embeddings.projection.weight",
            "These are the layer names of Hugging Face's transformers",
        ),
        ("resnet.encoder.stages.0.layers.0.layer.0.weight", "These are the layer names of Hugging Face's transformers"),
        ("encoder.layers.encoder_layer_0.ln_1.weight", "These are torchvision's layer names: .*model=vit_b_16"),
        ("features.0.0.weight", "These are torchvision's layer names"),
        ("blocks.0.attn.qkv.weight", "These are timm's layer names: .* model=timm model.name=NAME"),
        ("body.0.lora_A.weight", r"These are adapters \(LoRA\): merge them"),
        ("trunk.0.weight", "Choose the model that these weights were made for"),
    ],
)
def test_the_library_with_these_layer_names_is_named(name: str, expected: str) -> None:
    with pytest.raises(WeightsError, match=rf"(?s)missing in the file: .*body\.0\.weight.*may differ\. {expected}"):
        load(Net(), {name: torch.ones(2), "norm.weight": torch.ones(4)})


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.complex64])
def test_numbers_of_another_kind_are_refused(dtype: torch.dtype) -> None:
    state = Net().state_dict()
    state["body.0.weight"] = state["body.0.weight"].to(dtype)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(WeightsError, match=rf"mine\.pth: body\.0\.weight has the dtype {kind}, and the network's"):
        load(Net(), state)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["body.0.weight", "norm.running_var"])
def test_numbers_that_are_not_finite_are_refused_by_name(name: str, value: float) -> None:
    state = {key: tensor.clone() for key, tensor in Net().state_dict().items()}
    state[name].view(-1)[1] = value
    kind = "NaN" if value != value else "infinity"
    target = Net()
    before = target.body[0].weight.clone()
    with pytest.raises(WeightsError, match=rf"mine\.pth: {name} has {kind} \(1 of \d numbers are not finite\)"):
        load(target, state)
    assert torch.equal(target.body[0].weight, before)


def test_nan_in_a_head_matters_only_where_it_is_kept() -> None:
    source = Net()
    source.fc.weight.data[0] = torch.nan
    load(Net(), source.state_dict(), ("a", "b", "c"))
    named = file(source.state_dict(), classes=("a", "b", "c"))
    load_weights(Net(), named, ("fc",), ("b", "c", "d"))
    with pytest.raises(WeightsError, match=r"mine\.pth: fc\.weight has NaN"):
        load_weights(Net(), named, ("fc",), ("a", "b", "d"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_of_numbers_are_converted(dtype: torch.dtype) -> None:
    source, target = Net(), Net()
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in source.state_dict().items()}
    load(target, state)
    assert target.body[0].weight.dtype == torch.float32
    assert torch.equal(target.body[0].weight, source.body[0].weight.to(dtype).float())


def test_a_number_too_large_for_the_networks_type_is_refused() -> None:
    state = dict(Net().state_dict())
    state["body.0.bias"] = torch.full((4,), 1e300, dtype=torch.float64)
    with pytest.raises(WeightsError, match=r"body\.0\.bias has infinity \(4 of 4"):
        load(Net(), state)


@pytest.mark.filterwarnings("ignore:torch.quantize")
@pytest.mark.parametrize("kind", ["meta", "sparse", "quantised"])
def test_tensors_without_plain_numbers_are_refused(kind: str) -> None:
    plain = torch.zeros(4, 2)
    if kind == "quantised":
        unusual = torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8)
    else:
        unusual = plain.to_sparse() if kind == "sparse" else plain.to("meta")
    with pytest.raises(WeightsError, match=r"mine\.pth: body\.0\.weight is not a plain tensor of numbers"):
        load(Net(), dict(Net().state_dict()) | {"body.0.weight": unusual})


def test_tensors_that_are_views_are_loaded() -> None:
    source, target = Net(), Net()
    state = dict(source.state_dict())
    state["body.0.weight"] = source.body[0].weight.data.t().contiguous().t()
    state["fc.bias"] = torch.ones(1).expand(3)
    load(target, state)
    assert torch.equal(target.body[0].weight, source.body[0].weight)


def test_what_old_and_new_versions_of_the_libraries_differ_in_is_no_difference() -> None:
    state = dict(Net().state_dict())
    del state["norm.num_batches_tracked"]
    state["body.index"] = torch.arange(2)  # stored by an older version
    load(Net(), state)
    network = nn.ModuleDict({"norm": nn.GroupNorm(1, 4), "fc": nn.Linear(4, 3)})
    load(network, {**network.state_dict(), "norm.num_batches_tracked": torch.tensor(3)})


def test_loading_in_order_checks_number_and_shapes_and_values() -> None:
    def ordered(module: nn.Module) -> WeightsFile:
        return WeightsFile("bundle", {f"x{i}": tensor for i, tensor in enumerate(module.state_dict().values())})

    source, target = Net(num_classes=1000), Net()
    load_in_order(target, ordered(source), ("fc",))
    assert torch.equal(target.body[0].weight, source.body[0].weight)
    with pytest.raises(WeightsError, match=r"x1 has the shape \(5, 2\), .* network's body\.0\.weight \(4, 2\)"):
        load_in_order(target, ordered(Net(width=5)), ("fc",))
    with pytest.raises(WeightsError, match="bundle has 2 tensors, the network 10"):
        load_in_order(target, ordered(source.fc), ("fc",))
    source.norm.bias.data[0] = torch.nan
    with pytest.raises(WeightsError, match=r"bundle: norm\.bias has NaN"):
        load_in_order(target, ordered(source), ("fc",))
