"""The features of images, with what belongs together: samples of one group, and copies of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import join_groups


@dataclass(frozen=True, slots=True)
class Features:
    """What the frozen network makes of every training and validation image; the test split is not among them.

    Attributes:
        values: float32 [N, D], what enters the last layer of the head.
        labels: int64 [N].
        groups: int64 [N]; samples of the same number are on the same side of every fold.
        samples: the N samples: those of train, then those of val.
        classes: the names of the K classes.
    """

    values: Tensor
    labels: Tensor
    groups: Tensor
    samples: Sequence[Sample]
    classes: tuple[str, ...]

    @property
    def num_groups(self) -> int:
        """Number of groups; a sample without a group or a copy counts as one."""
        return int(self.groups.max()) + 1

    def take(self, rows: Tensor | npt.NDArray[np.int64]) -> Features:
        """Some of the samples; the groups are numbered anew."""
        index = torch.as_tensor(rows)
        groups = torch.unique(self.groups[index], return_inverse=True)[1]
        samples = tuple(self.samples[i] for i in index.tolist())
        return Features(self.values[index], self.labels[index], groups, samples, self.classes)


def number_groups(samples: Sequence[Sample], ties: Mapping[str, str]) -> Tensor:
    """Number what has to stay together: int64 [N], the same for samples that a chain of groups and copies connects.

    Args:
        samples: N samples; one without a group is a group of its own.
        ties: path -> name of the set of copies that an image belongs to; images without a copy are not in it.
    """
    names = [f"path {s.path}" if s.group is None else f"group {s.group}" for s in samples]
    joined = join_groups(names, [ties.get(sample.path) for sample in samples])
    return torch.from_numpy(np.unique(joined, return_inverse=True)[1].astype(np.int64))
