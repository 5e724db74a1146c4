"""Which images to label next: those that stand for many others of which the head is unsure."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ftexp.probe.features import Features
from ftexp.probe.out_of_fold import fit_head

# Similarities of all pairs are in memory; of more images, those of which the head is most unsure are looked at.
MAX_IMAGES = 5_000

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pick:
    """An image that is worth a label.

    Attributes:
        row: its place among the images without labels.
        likely: the class with the highest probability.
        probability: of that class.
        second: the class with the second highest probability.
        second_probability: of that class.
        stands_for: how many other images without labels are more like it than like any labelled image or earlier pick.
    """

    row: int
    likely: int
    probability: float
    second: int
    second_probability: float
    stands_for: int


def pick_images(features: Features, values: Tensor, count: int) -> list[Pick]:
    """Pick images one after the other, each where it adds most to what those before it stand for.

    An image is unsure by one minus the margin between its two likeliest classes. A set of images is as good as the
    similarities of all images to their nearest one in it, weighted by how unsure these are; what the labelled images
    stand for already does not count. So each pick has many unsure images around it, and is unlike the labelled images
    and the earlier picks; an image that is like no other stands for nothing. This is facility location weighted by
    uncertainty (Wei, Iyer and Bilmes, 2015), solved greedily, and the best in the mean of those in
    ``benchmarks/pick_images.py``.

    Args:
        features: the labelled samples, of which a head is trained.
        values: float32 [M, D], features of the images without labels.
        count: how many; fewer if there are not so many, and at most ``MAX_IMAGES``.

    Returns:
        The picks, best first.
    """
    probabilities = torch.softmax(fit_head(features).logits(values), dim=1)
    best = probabilities.topk(2, dim=1)
    unsure = (1 - (best.values[:, 0] - best.values[:, 1])).float()
    rows = torch.sort(torch.argsort(unsure, descending=True, stable=True)[:MAX_IMAGES]).values
    labelled, directions = _directions(features.values, values[rows])
    similarity = _similarity(directions)
    covered = (directions @ labelled.T).amax(dim=1).clamp(min=0).numpy()
    picked = _greedy(similarity, unsure[rows].numpy(), covered, count)
    return [
        Pick(
            row,
            int(best.indices[row, 0]),
            float(best.values[row, 0]),
            int(best.indices[row, 1]),
            float(best.values[row, 1]),
            stands_for,
        )
        for row, stands_for in ((int(rows[place]), number) for place, number in picked)
    ]


def _directions(labelled: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Both standardised by all of them, then of length 1; their products are cosines."""
    together = torch.cat([labelled, values])
    spread = together.std(dim=0, correction=0)
    scale = torch.where(spread > 0, 1 / spread.clamp(min=1e-12), 0.0)
    directions = torch.nn.functional.normalize((together - together.mean(dim=0)) * scale, dim=1)
    return directions[: len(labelled)], directions[len(labelled) :]


def _similarity(directions: Tensor) -> Floats:
    """Cosines of all pairs, at least 0. To itself an image is as similar as to its nearest: outliers gain nothing."""
    similarity = (directions @ directions.T).fill_diagonal_(0).clamp_(min=0)
    nearest = similarity.amax(dim=1)
    return similarity.diagonal_scatter(nearest).numpy()


def _greedy(similarity: Floats, weights: Floats, covered: Floats, count: int) -> list[tuple[int, int]]:
    """Facility location by greedy steps; a gain never grows, so most need not be computed again (Minoux, 1978).

    Args:
        similarity: float32 [P, P].
        weights: float32 [P], what covering each one is worth.
        covered: float32 [P], how far each one is covered at the start.
        count: how many to pick.

    Returns:
        The picks, best first, each with the number of others that it covers more than what was there before it.
    """
    queue = [(-_gain(row, weights, covered), place) for place, row in enumerate(similarity)]
    heapq.heapify(queue)
    picked: list[tuple[int, int]] = []
    while queue and len(picked) < count:
        place = heapq.heappop(queue)[1]
        entry = (-_gain(similarity[place], weights, covered), place)
        if queue and entry > queue[0]:
            heapq.heappush(queue, entry)
            continue
        better = similarity[place] > covered
        picked.append((place, int(better.sum()) - int(better[place])))
        covered = np.maximum(covered, similarity[place])
    return picked


def _gain(row: Floats, weights: Floats, covered: Floats) -> float:
    return float(np.maximum(row - covered, 0) @ weights)
