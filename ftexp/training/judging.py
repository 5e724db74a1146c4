"""How many labels look wrong, which a run tells before its first phase from the features of the pretrained network."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ftexp.data.splitting.splits import Splits
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.models.depth_head import StandardisedLinear
from ftexp.probe.features import Features, number_groups
from ftexp.probe.label_check import check_labels
from ftexp.training.inputs.features import FeatureInputs, gathered, last_layer

# Up to so many images of train and val, finding copies and judging labels takes seconds.
MAX_JUDGED = 5_000


@dataclass(frozen=True, slots=True)
class JudgedLabels:
    """How many labels look wrong.

    Attributes:
        num_images: of train and val.
        suspects: how many of their labels look wrong.
    """

    num_images: int
    suspects: int


def judge_labels(
    network: Network, features: FeatureInputs, splits: Splits, runtime: Runtime, odds: float
) -> JudgedLabels:
    """Judge the labels of train and val as ``ftexp.labels`` does, in one process.

    Args:
        network: with the pretrained weights, in eval mode.
        features: the batches.
        splits: the samples, and the copies among them: an image is judged without its copies.
        runtime: the device.
        odds: a label looks wrong if another class is at least so many times as probable.
    """
    layer = last_layer(network)
    both = [gathered(features.before_last, b, runtime) for b in (features.inputs.train, features.inputs.val)]
    values, labels = (torch.cat([part[i] for part in both if part is not None]) for i in (0, 1))
    if isinstance(layer, StandardisedLinear):
        values = layer.standardise(values)
    samples = (*splits.train, *splits.val)
    groups = number_groups(samples, splits.copies or {})
    check = check_labels(Features(values, labels, groups, samples, splits.classes), odds)
    return JudgedLabels(len(samples), int(check.suspects.sum()))
