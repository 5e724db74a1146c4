"""The rows of a file's head are kept by the names of their classes."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from ftexp.errors import ConfigError
from ftexp.models import head_rows
from ftexp.models.head_rows import rows_by_name, with_new_names


class TwoHeads(nn.Module):
    """A distilled transformer's."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Linear(2, 4)
        self.head = nn.Linear(4, num_classes)
        self.head_dist = nn.Linear(4, num_classes)


def head(kind: str, num_classes: int) -> nn.Module:
    layers: dict[str, nn.Module] = {
        "linear": nn.Linear(4, num_classes),
        "without bias": nn.Linear(4, num_classes, bias=False),
        "conv": nn.Conv2d(4, num_classes, 1),
        "norm first": nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, num_classes)),
        "hidden layer": nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, num_classes)),
    }
    return nn.ModuleDict({"head": layers[kind]})


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if not name.startswith("body")}


@pytest.mark.parametrize("kind", ["linear", "without bias", "conv", "norm first", "hidden layer"])
def test_rows_follow_the_names_and_new_classes_get_new_rows(kind: str) -> None:
    old, new = head(kind, 3), head(kind, 4)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    kept, told = rows_by_name(new, tensors(old), ("head",), ("ape", "cat", "dog"), ("bee", "cat", "ape", "eel"))

    new.load_state_dict(kept)
    for name, tensor in new.state_dict().items():
        theirs = old.state_dict()[name]
        if tensor.shape == theirs.shape:  # of a layer before the classifying one
            assert torch.equal(tensor, theirs), name
            continue
        assert torch.equal(tensor[1], theirs[1])
        assert torch.equal(tensor[2], theirs[0])
        assert torch.equal(tensor[[0, 3]], before[name][[0, 3]])
    assert told == (
        "the head (head) keeps its rows for cat, ape, matched by class name; new rows for bee, eel; left out: dog"
    )


def test_a_hidden_layer_as_wide_as_there_are_classes_is_not_cut_into_rows() -> None:
    def wide() -> nn.Module:
        return nn.ModuleDict({"head": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))})

    old, new = wide(), wide()
    kept, _ = rows_by_name(new, tensors(old), ("head",), ("a", "b", "c"), ("c", "b", "a"))
    assert torch.equal(kept["head.0.weight"], old.head[0].weight)
    assert torch.equal(kept["head.1.weight"], old.head[1].weight.flip(0))


def test_the_same_classes_keep_the_whole_head() -> None:
    old, new = head("linear", 3), head("linear", 3)
    kept, told = rows_by_name(new, tensors(old), ("head",), ("a", "b", "c"), ("a", "b", "c"))
    assert torch.equal(kept["head.weight"], old.head.weight)
    assert told == "the head (head) keeps its rows for a, b, c, matched by class name"


def test_all_heads_of_a_distilled_network_keep_rows() -> None:
    old, new = TwoHeads(2), TwoHeads(2)
    heads = ("head", "head_dist")
    kept, told = rows_by_name(new, tensors(old), heads, ("cat", "dog"), ("dog", "eel"))
    assert torch.equal(kept["head.weight"][0], old.head.weight[1])
    assert torch.equal(kept["head_dist.bias"][0], old.head_dist.bias[1])
    assert "the head (head, head_dist) keeps its rows for dog" in told

    only = {name: tensor for name, tensor in tensors(old).items() if name.startswith("head.")}
    kept, told = rows_by_name(new, only, heads, ("cat", "dog"), ("dog", "eel"))
    assert sorted(kept) == ["head.bias", "head.weight"]
    assert told.endswith("left out: cat; head_dist is newly initialised")


def test_a_linear_layer_gives_its_rows_to_a_convolution() -> None:
    old, new = head("linear", 2), head("conv", 2)
    kept, _ = rows_by_name(new, tensors(old), ("head",), ("cat", "dog"), ("dog", "cat"))
    assert torch.equal(kept["head.weight"][:, :, 0, 0], old.head.weight.flip(0))


def test_a_letter_and_its_accent_may_be_written_apart() -> None:
    old, new = head("linear", 2), head("linear", 2)
    kept, _ = rows_by_name(new, tensors(old), ("head",), ("cafe\u0301", "tea"), ("caf\u00e9", "milk"))
    assert torch.equal(kept["head.weight"][0], old.head.weight[0])


@pytest.mark.parametrize(
    ("theirs", "ours", "kind", "said"),
    [
        (None, ("a", "b", "c"), "linear", "is newly initialised: the file does not name its classes"),
        (("a", "b", "c"), 3, "linear", "is newly initialised: the file does not name"),
        (("a", "b", "c"), ("x", "y", "z"), "linear", "the data has none of the file's classes .a, b, c."),
        (("a", "b"), ("a", "b"), "linear", "not one row per class"),
        (("a", "b", "c"), ("a", "b", "c"), "norm first", "the file's has other layers"),
        (("a", "b", "c"), ("a", "b", "c"), "without bias", "the file's has other layers"),
    ],
)
def test_otherwise_the_head_starts_anew_and_it_is_said_why(
    theirs: tuple[str, ...] | None, ours: tuple[str, ...] | int, kind: str, said: str
) -> None:
    new = head("linear", ours if isinstance(ours, int) else len(ours))
    kept, told = rows_by_name(new, tensors(head(kind, 3)), ("head",), theirs, ours)
    assert kept == {}
    assert re.search(said, told)


def test_a_file_without_a_head_is_said() -> None:
    kept, told = rows_by_name(head("linear", 2), {}, ("head",), ("a", "b"), ("a", "b"))
    assert (kept, told) == ({}, "the head (head) is newly initialised: the file has none")


def test_a_renamed_class_keeps_its_row() -> None:
    old, new = head("linear", 3), head("linear", 4)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    ours = ("cat", "hound", "monkey", "owl")
    theirs = with_new_names(("ape", "cat", "dog"), {"dog": "hound", "ape": "monkey"}, ours, "best.pt")
    assert theirs == ("monkey", "cat", "hound")
    kept, told = rows_by_name(new, tensors(old), ("head",), theirs, ours)
    new.load_state_dict(kept)
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor[:3], old.state_dict()[name][[1, 2, 0]])
        assert torch.equal(tensor[3], before[name][3])
    assert "keeps its rows for cat, hound, monkey" in told


def test_two_classes_may_change_their_names() -> None:
    assert with_new_names(("a", "b"), {"a": "b", "b": "a"}, ("a", "b"), "best.pt") == ("b", "a")
    assert with_new_names(("a", "b"), {}, ("a",), "best.pt") == ("a", "b")
    assert with_new_names(None, {}, ("a",), "best.pt") is None


@pytest.mark.parametrize(
    ("theirs", "class_map", "message"),
    [
        (None, {"a": "b"}, r"model\.class_map renames classes, and best\.pt does not name its own"),
        (("ape", "cat"), {"aep": "cat"}, r"renames 'aep', and best\.pt has no class of that name\. Did you mean 'ape'"),
        (
            ("ape", "cat"),
            {"ape": "bear"},
            r"renames to 'bear', and the data has no class of that name.* It has cat, dog",
        ),
        (("ape", "cat"), {"ape": "cat"}, r"gives the name 'cat' to 'ape' and 'cat' of best\.pt"),
        (("ape", "cow"), {"ape": "cat", "cow": "cat"}, r"gives the name 'cat' to 'ape' and 'cow'"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(
    theirs: tuple[str, ...] | None, class_map: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        with_new_names(theirs, class_map, ("cat", "dog"), "best.pt")


def test_many_classes_are_matched_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are brought to one form a few times each, and not for every other one."""
    theirs = [f"old {i}" for i in range(300)] + ["both"]
    ours = [*[f"new {i}" for i in range(300)], "both"]
    calls: list[str] = []
    same = head_rows._same
    monkeypatch.setattr(head_rows, "_same", lambda name: calls.append(name) or same(name))
    old, new = head("linear", 301), head("linear", 301)
    _, told = rows_by_name(new, tensors(old), ("head",), theirs, ours)
    assert told.startswith("the head (head) keeps its rows for both, matched by class name; new rows for new 0, new 1,")
    assert len(calls) < 10 * len(theirs)
    calls.clear()
    with_new_names(theirs, {f"old {i}": f"new {i}" for i in range(300)}, ours, "file")
    assert len(calls) < 10 * len(theirs)
