"""How many images, batches and updates an epoch has."""

from __future__ import annotations

import pytest
from conftest import make_phase

from ftexp.errors import ConfigError, DataError
from ftexp.finetune.epochs import EpochLength, epoch_length, smallest_batch
from ftexp.models.blocks import Network


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "accumulate", "least", "expected"),
    [
        (25, 16, 1, 1, EpochLength(25, 0, 2, 2)),
        (25, 16, 1, 2, EpochLength(25, 0, 2, 2)),  # a last batch of 9 is enough for statistics
        (25, 8, 1, 1, EpochLength(25, 0, 4, 4)),  # a last batch of 1
        (25, 8, 1, 2, EpochLength(24, 1, 3, 3)),
        (25, 8, 2, 1, EpochLength(25, 0, 4, 2)),
        (25, 8, 2, 2, EpochLength(24, 1, 3, 2)),
        (27, 8, 1, 4, EpochLength(24, 3, 3, 3)),
        (24, 8, 4, 2, EpochLength(24, 0, 3, 1)),
        (5, 64, 1, 2, EpochLength(5, 0, 1, 1)),
        (1, 64, 1, 1, EpochLength(1, 0, 1, 1)),
        (3, 1, 2, 1, EpochLength(3, 0, 3, 2)),
    ],
)
def test_an_epoch_leaves_out_only_a_last_batch_that_is_too_small(
    num_samples: int, batch_size: int, accumulate: int, least: int, expected: EpochLength
) -> None:
    assert epoch_length(num_samples, batch_size, accumulate, least) == expected


def test_batches_of_one_image_are_refused_where_statistics_are_taken() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size=1 is too small.*at least train\.batch_size=2, or bn_pol"):
        epoch_length(24, 1, 8, 2)
    with pytest.raises(DataError, match=r"Too few training images, 1:.*at least 2 in a batch.*bn_policy=eval"):
        epoch_length(1, 32, 1, 2)


@pytest.mark.parametrize(
    ("learning", "policy", "processes", "expected"),
    [
        (("head",), "train", 1, 1),  # no BatchNorm in it
        (("body", "head"), "train", 1, 2),
        (("body", "head"), "freeze_affine", 1, 2),
        (("body", "head"), "eval", 1, 1),
        (("body", "head"), "eval", 4, 1),
        (("body", "head"), "train", 4, 4),
    ],
)
def test_only_statistics_of_learning_blocks_need_more_than_one_image(
    network: Network, learning: tuple[str, ...], policy: str, processes: int, expected: int
) -> None:
    assert smallest_batch(network, make_phase(*learning, policy=policy), processes) == expected
