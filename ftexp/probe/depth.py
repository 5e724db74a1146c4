"""How much each block of the frozen network knows about the classes, and whether the head gains from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ftexp.probe.features import Features
from ftexp.probe.out_of_fold import out_of_fold
from ftexp.progress_lines import ProgressLines

# More images take minutes, with the thousands of features of a transformer's blocks, and tell no more.
MAX_IMAGES = 2_000

# With two groups, each head would be trained on one of them, and the error of a difference be told from two numbers.
MIN_GROUPS = 3

# The least difference of accuracies at which a worse late block is worth a warning. With sound weights, it was 0.038 at
# most on five sets (digits); with one late block of random weights 0.095 on photographs (benchmarks/results.md).
MIN_LOSS = 0.05

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gain:
    """By how much a head is better than another on the same images, neither having seen their groups.

    Attributes:
        mean: mean of the differences.
        error: its standard error, over groups.
    """

    mean: float
    error: float


@dataclass(frozen=True, slots=True)
class Boundary:
    """The accuracy of heads on the averaged output of a block.

    Attributes:
        block: the block; the last one stands for the features before the last layer.
        width: number of its channels.
        alone: accuracy of a head on this output.
        up_to: accuracy of a head on this and all earlier outputs.
        gain_of_best: of the block whose output is best over this one, each alone.
    """

    block: str
    width: int
    alone: float
    up_to: float
    gain_of_best: Gain


@dataclass(frozen=True, slots=True)
class DepthProbe:
    """Cross-validated heads on the outputs of the blocks.

    Attributes:
        boundaries: one per block, in the order of the network.
        gain_of_all: accuracy of a head on all outputs above that on the features before the last layer alone.
        loss_gain_of_all: by how much its log loss is lower.
        num_images: how many images were left out in turn.
        num_groups: into how many groups they fall, each left out as a whole.
    """

    boundaries: tuple[Boundary, ...]
    gain_of_all: Gain
    loss_gain_of_all: Gain
    num_images: int
    num_groups: int

    @property
    def prefers_all(self) -> bool:
        """Whether all outputs are better by more than one standard error of the difference, and not in accuracy alone.

        On few images, one in six such differences is chance; the log loss shows nearly all of these.
        """
        return self.gain_of_all.mean > self.gain_of_all.error and self.loss_gain_of_all.mean > 0

    @property
    def last_blocks(self) -> int:
        """How many of the last blocks to train: those after the last that knows as much as the best, but at least one.

        As much is within one standard error of the difference.
        """
        as_good = [i for i, one in enumerate(self.boundaries) if one.gain_of_best.mean <= one.gain_of_best.error]
        return max(1, len(self.boundaries) - 1 - as_good[-1])

    @property
    def late_is_worse(self) -> bool:
        """Whether the last block knows so much less than an earlier one that something is probably wrong."""
        gain = self.boundaries[-1].gain_of_best
        return gain.mean > max(MIN_LOSS, 2 * gain.error)

    @property
    def best(self) -> Boundary:
        """The block whose output alone gives the highest accuracy."""
        return max(self.boundaries, key=lambda boundary: boundary.alone)


def probe_depth(features: Features, blocks: Sequence[tuple[str, int]], seed: int) -> DepthProbe:
    """Score a head on the output of every block, alone and with all before it, on groups that it has not seen.

    Args:
        features: N samples with the standardised outputs of all blocks one after the other, of at least ``MIN_GROUPS``
            groups.
        blocks: name and width of each block's output.
        seed: draws the images where there are more than ``MAX_IMAGES``.
    """
    features = _sampled(features, seed)
    widths = [width for _, width in blocks]
    ends = np.cumsum(widths)
    columns = [slice(int(end) - width, int(end)) for end, width in zip(ends, widths, strict=True)]
    progress, done = ProgressLines("depth", "scored", "heads on outputs of blocks", 2 * len(columns) - 1), count(1)

    def score(part: slice) -> _Held:
        held = _Held.of(features, features.values[:, part])
        progress.at(next(done))
        return held

    alone = [score(part) for part in columns]
    up_to = [alone[0], *(score(slice(part.stop)) for part in columns[1:])]
    groups = features.groups.numpy()
    best = max(alone, key=lambda held: held.accuracy)
    boundaries = tuple(
        Boundary(block, width, one.accuracy, both.accuracy, _gain(best.correct - one.correct, groups))
        for (block, width), one, both in zip(blocks, alone, up_to, strict=True)
    )
    last, every = alone[-1], up_to[-1]
    gains = _gain(every.correct - last.correct, groups), _gain(last.losses - every.losses, groups)
    return DepthProbe(boundaries, *gains, len(groups), features.num_groups)


@dataclass(frozen=True, slots=True)
class _Held:
    """Of each sample, by a head that has not seen its group: 1 if it is right, else 0, and its log loss."""

    correct: Floats
    losses: Floats

    @classmethod
    def of(cls, features: Features, values: Tensor) -> _Held:
        probabilities = out_of_fold(replace(features, values=values)).probabilities
        labels = features.labels.numpy()
        given = probabilities[np.arange(len(labels)), labels]
        return cls((probabilities.argmax(axis=1) == labels).astype(np.float64), -np.log(np.maximum(given, 1e-12)))

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


def _gain(differences: Floats, groups: npt.NDArray[np.int64]) -> Gain:
    """The mean difference; the images of a group are not independent, so their sum counts as one."""
    mean = float(differences.mean())
    of_groups = np.bincount(groups, differences - mean)
    return Gain(mean, float(np.sqrt(np.square(of_groups).sum()) / len(differences)))


def _sampled(features: Features, seed: int) -> Features:
    """At most ``MAX_IMAGES`` samples: the groups give one after the other in turn, so none has more than its share."""
    if len(features.labels) <= MAX_IMAGES:
        return features
    order = torch.randperm(len(features.labels), generator=torch.Generator().manual_seed(seed))
    groups = features.groups[order]
    by_group, sizes = torch.argsort(groups, stable=True), torch.bincount(groups)
    turns = torch.empty_like(groups)
    turns[by_group] = torch.arange(len(groups)) - (sizes.cumsum(0) - sizes)[groups[by_group]]
    return features.take(order[torch.argsort(turns, stable=True)[:MAX_IMAGES]].sort().values)
