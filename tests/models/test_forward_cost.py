"""Seconds, memory and parameters of a forward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ftexp.machine.runtime import inference_runtime
from ftexp.models.forward_cost import IMAGES, LiveBytes, forward_cost


def test_the_most_bytes_that_exist_at_once_are_counted() -> None:
    module = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 2), nn.Linear(2, 8))
    inputs = torch.zeros(5, 4)
    with torch.no_grad(), LiveBytes(list(module.parameters())) as live:
        live.add(inputs)
        module(inputs)
    assert live.peak == 4 * 5 * (4 + 16 + 2)  # the input, and the largest output beside the next one
    with torch.no_grad(), LiveBytes() as live:
        first = torch.zeros(10)
        first.view(2, 5).t()  # shares its memory
        del first
        kept = [torch.zeros(4), torch.zeros(4)]
    assert len(kept) == 2
    assert live.peak == 40


def test_costs_are_those_of_one_image() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    cost = forward_cost(module, 16, inference_runtime("cpu"))
    assert cost.parameters == 3 * 8 + 8
    assert cost.mib == pytest.approx(4 * 16 * 16 * (3 + 8) / 2**20, rel=0.02)
    assert 0 < cost.seconds < 1
    assert IMAGES > 1
