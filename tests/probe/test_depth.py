"""What blocks know of the classes: cross-validated by groups, and compared with errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_features import features_of

from ftexp import progress_lines
from ftexp.probe import depth
from ftexp.probe.depth import DepthProbe, Gain, _gain, probe_depth
from ftexp.probe.features import Features

BLOCKS = [("stem", 4), ("body", 3), ("top", 6)]


def made(signal: tuple[float, float, float], num_samples: int = 120, seed: int = 0) -> Features:
    """Three outputs, each of which knows the class as far as its signal is above the noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_samples) % 3
    parts = []
    for (_, width), strength in zip(BLOCKS, signal, strict=True):
        part = torch.randn(num_samples, width, generator=generator)
        part[torch.arange(num_samples), labels] += strength
        parts.append(part)
    return features_of(torch.cat(parts, dim=1), labels.tolist(), range(num_samples))


def test_each_output_is_scored_alone_and_with_all_before_it() -> None:
    stem, body, top = probe_depth(made((0, 0, 6)), BLOCKS, seed=0).boundaries
    assert (stem.block, stem.width, top.block) == ("stem", 4, "top")
    assert stem.alone < 0.55
    assert stem.up_to == stem.alone
    assert body.up_to < 0.55
    assert min(top.alone, top.up_to) > 0.97
    assert top.gain_of_best.mean == 0
    assert stem.gain_of_best.mean == pytest.approx(top.alone - stem.alone)


def test_a_long_probe_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    probe_depth(made((0, 0, 6)), BLOCKS, seed=0)
    assert not caplog.messages
    monkeypatch.setattr(progress_lines, "SECONDS_BETWEEN", 0)
    monkeypatch.setattr(progress_lines, "PART_BETWEEN", 0)
    probe_depth(made((0, 0, 6)), BLOCKS, seed=0)
    said = [text.partition(";")[0] for text in caplog.messages if text.startswith("depth")]
    assert said == [f"depth   scored {number} of 5 heads on outputs of blocks" for number in range(1, 5)]


def test_all_outputs_are_preferred_where_they_know_what_the_last_does_not() -> None:
    probe = probe_depth(made((2, 2, 1.5)), BLOCKS, seed=0)
    assert probe.gain_of_all.mean == pytest.approx(probe.boundaries[-1].up_to - probe.boundaries[-1].alone)
    assert probe.gain_of_all.mean > 2 * probe.gain_of_all.error > 0
    assert probe.prefers_all


@pytest.mark.parametrize(
    ("mean", "error", "loss", "preferred"),
    [(0.02, 0.01, 0.1, True), (0.01, 0.01, 0.1, False), (0, 0, 0.1, False), (0.02, 0.01, -0.1, False)],
)
def test_it_takes_more_than_one_standard_error_and_no_higher_log_loss(
    mean: float, error: float, loss: float, preferred: bool
) -> None:
    assert DepthProbe((), Gain(mean, error), Gain(loss, 1.0), 10, 10).prefers_all is preferred


def test_images_of_a_group_are_left_out_together() -> None:
    """Copies of noise: a head that has seen one of them knows the label of the others."""
    single = torch.randn(30, 13, generator=torch.Generator().manual_seed(0))
    labels = (torch.arange(30) % 3).repeat_interleave(4).tolist()
    copies = single.repeat_interleave(4, dim=0)
    together = probe_depth(features_of(copies, labels, [i // 4 for i in range(120)]), BLOCKS, seed=0)
    apart = probe_depth(features_of(copies, labels, range(120)), BLOCKS, seed=0)
    assert together.num_groups == 30
    assert together.boundaries[-1].up_to < 0.6 < apart.boundaries[-1].up_to


def test_the_error_of_a_difference_is_that_of_groups() -> None:
    differences = np.array([1.0, 1.0, 0.0, 0.0])
    apart, together = (_gain(differences, np.array(groups)) for groups in ([0, 1, 2, 3], [0, 0, 1, 2]))
    assert apart.mean == together.mean == 0.5
    assert apart.error == pytest.approx(1 / 4)  # (.5, .5, -.5, -.5): the root of 4 x .25, by 4
    assert together.error == pytest.approx((1 + 0.25 + 0.25) ** 0.5 / 4)


@pytest.mark.parametrize(
    ("signal", "blocks", "worse"),
    [
        ((0.5, 1, 6), 1, False),
        ((0.5, 6, 6), 1, False),
        ((6, 6, 6), 1, False),
        ((1, 6, 1), 1, True),
        ((6, 1, 1), 2, True),
    ],
)
def test_blocks_after_the_last_that_knows_as_much_as_the_best_are_to_be_trained(
    signal: tuple[float, float, float], blocks: int, worse: bool
) -> None:
    probe = probe_depth(made(signal), BLOCKS, seed=0)
    assert (probe.last_blocks, probe.late_is_worse) == (blocks, worse)


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ([60, 20, 40], [17, 16, 17]),  # the first alone would be more than all that are looked at
        ([100, 7, 13], [30, 7, 13]),  # a small group keeps all its images, and the others share the rest
        ([40, 40, 40], [16, 17, 17]),
        ([2] * 60, [1] * 50),
    ],
)
def test_of_many_images_every_group_gives_its_share(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], kept: list[int]
) -> None:
    monkeypatch.setattr(depth, "MAX_IMAGES", 50)
    features = made((1, 1, 3))
    groups = np.repeat(np.arange(len(sizes)), sizes).tolist()
    grouped = features_of(features.values, features.labels.tolist(), groups)
    few = depth._sampled(grouped, seed=0)
    assert sorted(torch.bincount(few.groups).tolist()) == sorted(kept)
    paths = [s.path for s in few.samples]
    rows = [int(path.removesuffix(".png")) for path in paths]
    torch.testing.assert_close(few.values, grouped.values[rows])
    assert torch.equal(few.groups, torch.unique(torch.tensor(groups)[rows], return_inverse=True)[1])
    assert paths != [s.path for s in depth._sampled(grouped, seed=1).samples]
