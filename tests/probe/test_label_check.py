"""Labels that are wrong come first, and whoever cannot be judged comes last."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from made_features import clouds, features_of

from ftexp.probe.label_check import check_labels, nearest_neighbours


def test_planted_labels_come_first() -> None:
    right = clouds(60)
    wrong = torch.tensor([7, 23, 40])
    labels = right.labels.clone()
    labels[wrong] = (labels[wrong] + 1) % 3
    check = check_labels(replace(right, labels=labels), suspect_odds=4.0)
    assert set(check.order[:3].tolist()) == {7, 23, 40}
    assert np.flatnonzero(check.suspects).tolist() == [7, 23, 40]
    assert check.likely.tolist() == right.labels.tolist()
    assert check.accuracy == 57 / 60
    assert (check.given[wrong] < 0.1).all()
    assert (check.likely_probability[wrong] > 0.8).all()
    # The odds compare the label with the likeliest other class, whether it is likelier or not.
    assert (np.diff(check.odds[check.order]) <= 0).all()
    assert not check_labels(replace(right, labels=labels), check.odds.max() * 1.01).suspects.any()


def test_a_class_of_one_group_is_not_judged() -> None:
    whole = clouds(30)
    groups = torch.where(whole.labels == 2, 99, torch.arange(30))
    check = check_labels(replace(whole, groups=torch.unique(groups, return_inverse=True)[1]), suspect_odds=1.01)
    assert (check.likely[whole.labels == 2] != 2).all()  # no head without the group has seen the class
    assert check.checked.tolist() == (whole.labels != 2).tolist()
    assert not check.suspects.any()
    assert set(check.order[-10:].tolist()) == set(torch.where(whole.labels == 2)[0].tolist())


def test_neighbours_are_the_nearest_of_other_groups() -> None:
    angles = torch.deg2rad(torch.tensor([0.0, 1.0, 10.0, 25.0, 180.0, 200.0, 215.0]))
    values = torch.stack([angles.cos(), angles.sin()], dim=1)
    values = torch.cat([values, -values]) + torch.tensor(
        [1.5, 0.0]
    )  # only seen from their mean, they lie in these directions
    whole = features_of(values, [0, 1] * 7, [0, 0, *range(1, 13)])
    near = nearest_neighbours(whole, 2)
    assert near.shape == (14, 2)
    # The second half is opposite of the first: 11 is at 0 degrees, 12 at 20. 0 and 1 are of one group.
    assert near[0].tolist() == [11, 2]
    assert near[1].tolist() == [11, 2]
    assert near[3].tolist() == [12, 13]


def test_no_neighbour_is_told_where_there_is_none() -> None:
    whole = features_of(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.5]]), [0, 1, 0], [0, 0, 1])
    assert nearest_neighbours(whole, 5).tolist() == [[2, -1], [2, -1], [0, 1]]
