"""Copies of a state stay as they are."""

from __future__ import annotations

import torch

from ftexp.training.checkpoints.snapshot import snapshot


def test_no_change_of_the_state_reaches_the_copy() -> None:
    weight, nested = torch.ones(2, requires_grad=True), [torch.zeros(1)]
    state = {"model": {"weight": weight}, "groups": [{"lr": 0.1, "parts": (nested, "name", None)}]}
    copy = snapshot(state)
    with torch.no_grad():
        weight.add_(1)
    nested[0] += 1
    state["groups"][0]["lr"] = 5.0  # type: ignore[index]
    assert copy["model"]["weight"].tolist() == [1, 1]
    assert not copy["model"]["weight"].requires_grad
    assert copy["groups"] == [{"lr": 0.1, "parts": ([torch.zeros(1)], "name", None)}]


def test_what_shares_its_memory_still_does_and_nothing_else() -> None:
    table = torch.arange(6.0).reshape(2, 3)
    copy = snapshot({"a": table, "b": table.detach(), "c": table.T, "d": table[:1], "e": table.clone()})
    assert copy["a"] is copy["b"]
    assert len({tensor.data_ptr() for tensor in copy.values()}) == 4
    assert all(torch.equal(copy[name], value) for name, value in {"c": table.T, "d": table[:1]}.items())
    assert snapshot({"a": torch.empty(0), "b": torch.empty(0, 3)})["b"].shape == (0, 3)
