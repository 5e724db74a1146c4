"""Which labels are probably wrong: what heads say that saw neither an image nor what belongs to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ftexp.probe.features import Features
from ftexp.probe.out_of_fold import out_of_fold

# Rows whose similarities to all others are in memory at once.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class LabelCheck:
    """How probable every label is, by heads that saw neither the image nor what belongs to it.

    Attributes:
        given: float64 [N], the probability of the given label.
        likely: int64 [N], the class with the highest probability.
        likely_probability: float64 [N].
        odds: float64 [N], how many times as probable as the given label the likeliest other class is.
        checked: bool [N]; False for classes of which all images are in one group: no head without it knows the class.
        suspects: bool [N], the checked samples whose odds are too high.
        order: int64 [N], the samples by falling odds; those that are not checked come last.
        accuracy: share of the images whose given label is the likely one.
    """

    given: npt.NDArray[np.float64]
    likely: npt.NDArray[np.int64]
    likely_probability: npt.NDArray[np.float64]
    odds: npt.NDArray[np.float64]
    checked: npt.NDArray[np.bool_]
    suspects: npt.NDArray[np.bool_]
    order: npt.NDArray[np.int64]
    accuracy: float


def check_labels(features: Features, suspect_odds: float) -> LabelCheck:
    """Tell how probable each label is by heads of all other groups.

    Args:
        features: N samples with their labels.
        suspect_odds: a label is a suspect if another class is at least so many times as probable.
    """
    labels, rows = features.labels.numpy(), np.arange(len(features.labels))
    probabilities = out_of_fold(features).probabilities
    given, likely = probabilities[rows, labels], probabilities.argmax(axis=1)
    others = probabilities.copy()
    others[rows, labels] = 0
    odds = others.max(axis=1) / np.maximum(given, np.finfo(np.float64).tiny)
    checked = ~np.isin(labels, _classes_in_one_group(features))
    return LabelCheck(
        given=given,
        likely=likely,
        likely_probability=probabilities[rows, likely],
        odds=odds,
        checked=checked,
        suspects=checked & (odds >= suspect_odds),
        order=np.lexsort((-odds, ~checked)),
        accuracy=float(np.mean(likely == labels)),
    )


def nearest_neighbours(features: Features, count: int) -> npt.NDArray[np.int64]:
    """The most similar samples of other groups, the nearest first, by the cosine of centred features.

    Args:
        features: N samples.
        count: how many; fewer where there are not so many samples of other groups.

    Returns:
        int64 [N, count]; -1 where there is none.
    """
    count = min(count, len(features.labels) - 1)
    directions = torch.nn.functional.normalize(features.values - features.values.mean(dim=0), dim=1)
    parts = []
    for rows in torch.split(torch.arange(len(directions)), ROWS_AT_ONCE):
        similarity = directions[rows] @ directions.T
        similarity[features.groups[rows][:, None] == features.groups] = -math.inf
        best = similarity.topk(count, dim=1)
        parts.append(torch.where(best.values.isfinite(), best.indices, -1))
    return torch.cat(parts).numpy()


def _classes_in_one_group(features: Features) -> list[int]:
    groups_of: dict[int, set[int]] = {}
    for label, group in zip(features.labels.tolist(), features.groups.tolist(), strict=True):
        groups_of.setdefault(label, set()).add(group)
    return [label for label, groups in groups_of.items() if len(groups) == 1]
