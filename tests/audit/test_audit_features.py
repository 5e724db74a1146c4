"""The features of the audit on devices of different kinds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ftexp.audit.features import PretrainedFeatures
from ftexp.machine.device_kinds import KINDS


def test_features_are_computed_in_the_memory_format_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA contiguous, where channels last would wait for the kernels of depthwise convolutions."""
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    found = {}
    for least, expected in ((0, torch.channels_last), (5000, torch.contiguous_format)):
        monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], channels_last_from=least))
        features = PretrainedFeatures(torch.device("cpu"))
        found[least] = features(images)
        assert features._network is not None
        weights = [p for p in features._network.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
        assert weights
        assert all(weight.is_contiguous(memory_format=expected) for weight in weights)
        given: list[bool] = []
        first = features._network[0]  # type: ignore[index]
        first.register_forward_pre_hook(lambda _, args: given.append(args[0].is_contiguous(memory_format=expected)))  # noqa: B023
        features(images)
        assert given == [True]
    assert np.allclose(found[0], found[5000], rtol=1e-4, atol=1e-5)
