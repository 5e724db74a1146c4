from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ftexp.config import AugmentConfig
from ftexp.training.mixing import mix


class Pictures:
    """Image i of a batch is all i, of class i: what was mixed can be read off."""

    num_batches = 3
    num_samples = 12
    paths = ()

    def num_images(self, batch: int) -> int:
        return 4

    def close(self) -> None:
        pass

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8)
        for _ in range(3):
            yield images.contiguous(memory_format=torch.channels_last), torch.arange(4)


def epoch_of(seed: int, epoch: int, **augment: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(mix(Pictures(), AugmentConfig(**augment), num_classes=4, seed=seed).epoch(epoch))  # type: ignore[arg-type]


def test_without_mixing_the_batches_are_the_same_object() -> None:
    pictures = Pictures()
    assert mix(pictures, AugmentConfig(), num_classes=4, seed=0) is pictures  # type: ignore[arg-type]


def test_mixup_blends_images_and_targets_by_the_same_share() -> None:
    for images, targets in epoch_of(0, 1, mixup=1.0):
        own = targets[0, 0].item()
        assert 0 < own < 1
        expected = torch.tensor(
            [[own, 0, 0, 1 - own], [1 - own, own, 0, 0], [0, 1 - own, own, 0], [0, 0, 1 - own, own]]
        )
        torch.testing.assert_close(targets, expected)
        # Image i holds i in the share `own`, and its neighbour's number in the rest.
        torch.testing.assert_close(images.mean(dim=(1, 2, 3)), expected @ torch.arange(4.0))
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_cutmix_exchanges_the_share_of_pixels_that_the_targets_say() -> None:
    seen = set()
    for epoch in range(8):
        for images, targets in epoch_of(0, epoch, cutmix=1.0):
            assert set(images[1].unique().tolist()) <= {0.0, 1.0}
            assert (images[1] == 0).float().mean().item() == pytest.approx(targets[1, 0].item(), abs=1e-6)
            seen.add(targets[1, 0].item())
    assert len(seen) > 5


def test_both_take_turns() -> None:
    blended = {
        bool(set(images[1].unique().tolist()) - {0.0, 1.0})
        for epoch in range(8)
        for images, _ in epoch_of(0, epoch, mixup=1.0, cutmix=1.0)
    }
    assert blended == {True, False}


def test_the_draws_follow_from_seed_epoch_and_batch_alone() -> None:
    def shares(seed: int, epoch: int) -> list[float]:
        return [targets[0, 0].item() for _, targets in epoch_of(seed, epoch, mixup=1.0)]

    first = shares(3, 1)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert shares(3, 1) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(first + shares(3, 2) + shares(4, 1))) == 9
