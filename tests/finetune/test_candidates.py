"""The names that a message suggests for a pattern that matches nothing."""

from __future__ import annotations

import pytest

from ftexp.finetune.candidates import nearest_names


@pytest.mark.parametrize(
    ("glob", "nearest"),
    [
        ("layr4.*", "layer4.0.conv1.weight"),
        ("layer4.0.conv9.weight", "layer4.0.conv1.weight"),
        ("*.norm1.weigth", "blocks.0.norm1.weight"),
    ],
)
def test_the_nearest_names_are_compared_where_the_pattern_says_something(glob: str, nearest: str) -> None:
    names = ["stem.conv.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight", "blocks.0.norm1.bias",
             "blocks.0.norm1.weight"]  # fmt: skip
    assert nearest_names(glob, names)[0] == nearest
