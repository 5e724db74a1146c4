from __future__ import annotations

import torch

from ftexp.data.samples import Sample
from ftexp.probe.features import Features, number_groups


def test_groups_and_copies_are_joined_by_chains() -> None:
    samples = [Sample("a", "x", group="1"), Sample("b", "x", group="2"), Sample("c", "x"), Sample("d", "x")]
    # b, which is of group 2, is a copy of c; d is named like the group 2, and has nothing to do with it.
    samples += [Sample("2", "x"), Sample("e", "x", group="2")]
    assert number_groups(samples, {"b": "7", "c": "7"}).tolist() == [0, 1, 1, 2, 3, 1]
    assert number_groups(samples, {}).tolist() == [0, 1, 2, 3, 4, 1]


def test_a_part_numbers_its_groups_anew() -> None:
    samples = tuple(Sample(name, "x") for name in "abcd")
    whole = Features(torch.eye(4), torch.tensor([0, 1, 0, 1]), torch.tensor([0, 5, 3, 5]), samples, ("x", "y"))
    part = whole.take(torch.tensor([3, 1, 2]))
    assert part.groups.tolist() == [1, 1, 0]
    assert part.num_groups == 2
    assert part.labels.tolist() == [1, 1, 0]
    assert [sample.path for sample in part.samples] == ["d", "b", "c"]
    assert torch.equal(part.values, torch.eye(4)[[3, 1, 2]])
