"""Which images are picked, and which are not though the head is least sure of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_features import features_of
from torch import Tensor

from ftexp.probe import picking
from ftexp.probe.features import Features
from ftexp.probe.out_of_fold import fit_head
from ftexp.probe.picking import pick_images

SURE, UNSURE, OUTLIER, COPIES = range(40), range(40, 70), 70, range(71, 75)


def around(centre: tuple[float, ...], count: int, seed: int, spread: float = 0.3) -> Tensor:
    return torch.tensor(centre) + spread * torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def labelled() -> Features:
    """Two classes, told apart by the first number."""
    values = torch.cat([around((4, 0, 0, 0, 0, 0), 10, 0), around((-4, 0, 0, 0, 0, 0), 10, 1)])
    return features_of(values, [0] * 10 + [1] * 10, range(20))


@pytest.fixture
def values() -> Tensor:
    """40 like a class, 30 between the classes, one image between them like no other, and four copies of one."""
    unsure = around((0, 3, 0, 0, 0, 0), 30, 3, spread=0.8)
    outlier = torch.tensor([[0.0, 0, 0, 0, 0, -12]])
    return torch.cat([around((4, 0, 0, 0, 0, 0), 40, 2), unsure, outlier, unsure[:1].repeat(4, 1)])


def test_picks_are_unsure_unlike_each_other_and_like_many(labelled: Features, values: Tensor) -> None:
    picks = pick_images(labelled, values, 6)
    rows = [pick.row for pick in picks]
    assert set(rows) <= {*UNSURE, *COPIES}
    same = {UNSURE[0], *COPIES}
    assert len(same & set(rows)) <= 1
    assert len(set(rows)) == 6
    probabilities = torch.softmax(fit_head(labelled).logits(values), dim=1)
    margins = (probabilities[:, 0] - probabilities[:, 1]).abs()
    assert margins[OUTLIER] < margins[list(SURE)].min()  # by its margin it would be picked before these
    for pick in picks:
        assert pick.probability == pytest.approx(float(probabilities[pick.row].max()))
        assert (pick.second, pick.second_probability) == (1 - pick.likely, pytest.approx(1 - pick.probability))
    assert picks[0].stands_for > 10  # a good part of the crowd
    assert picks[5].stands_for < picks[0].stands_for


def test_what_labelled_images_stand_for_does_not_count(labelled: Features, values: Tensor) -> None:
    """With labels in the unsure crowd, the first pick is another one."""
    first = pick_images(labelled, values, 1)[0].row
    near = torch.cat([labelled.values, values[first : first + 1].repeat(2, 1)])
    more = features_of(near, [*labelled.labels.tolist(), 0, 1], range(22))
    assert pick_images(more, values, 1)[0].row != first


def test_fewer_picks_are_the_first_of_more(labelled: Features, values: Tensor) -> None:
    picks = pick_images(labelled, values, 100)
    assert sorted(pick.row for pick in picks) == list(range(len(values)))
    assert pick_images(labelled, values, 5) == picks[:5]


def test_of_many_images_the_most_unsure_are_looked_at(
    labelled: Features, values: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picking, "MAX_IMAGES", 35)
    assert {pick.row for pick in pick_images(labelled, values, 100)} == {*UNSURE, OUTLIER, *COPIES}


def test_a_feature_that_never_varies_changes_nothing(labelled: Features, values: Tensor) -> None:
    wider = replace(labelled, values=torch.cat([labelled.values, torch.ones(20, 1)], dim=1))
    with_constant = pick_images(wider, torch.cat([values, torch.ones(len(values), 1)], dim=1), 5)
    assert [pick.row for pick in with_constant] == [pick.row for pick in pick_images(labelled, values, 5)]


def test_lazy_steps_are_those_of_the_plain_algorithm() -> None:
    rng = np.random.default_rng(0)
    square = rng.random((40, 40)).astype(np.float32)
    similarity, weights = (square + square.T) / 2, rng.random(40).astype(np.float32)
    covered = 0.3 * rng.random(40).astype(np.float32)
    picked, by_now = list[tuple[int, int]](), covered
    for _ in range(10):
        gains = np.maximum(similarity - by_now, 0) @ weights
        gains[[place for place, _ in picked]] = -1
        best = int(gains.argmax())
        picked.append((best, sum(similarity[best, i] > by_now[i] for i in range(40) if i != best)))
        by_now = np.maximum(by_now, similarity[best])
    assert picking._greedy(similarity, weights, covered, 10) == picked
