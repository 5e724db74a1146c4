"""The order in which an epoch shows its samples, and which of them each rank gets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from ftexp.ranks import ALONE, Ranks


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) of a rank: the epoch travels with the index, so that persistent workers learn of it.

    Args:
        used: how many of the samples an epoch shows, over all ranks.
        classes: of the samples, each of which is then shown equally often; None: each sample is shown once.
    """

    def __init__(
        self,
        num_samples: int,
        used: int,
        shuffle: bool,
        seed: int,
        classes: npt.NDArray[np.int64] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._num_samples = num_samples
        self._used = used
        self._ranks = ranks
        self._classes = classes
        self._shuffle = shuffle
        self._seed = seed
        self.epoch = 0
        # Position of the first of the rank's indices that is given out, for an epoch that goes on where it stopped.
        self.first = 0

    def __len__(self) -> int:
        return self._used

    def __iter__(self) -> Iterator[tuple[int, int]]:
        own = self.indices(self.epoch)[self._ranks.rank :: self._ranks.size]
        return ((self.epoch, index) for index in own[self.first :])

    @property
    def shows_each_once(self) -> bool:
        """Whether no sample comes twice in an epoch."""
        return self._classes is None

    def indices(self, epoch: int) -> list[int]:
        """The order of an epoch, over all ranks."""
        if not self._shuffle:
            return list(range(self._used))
        rng = np.random.default_rng((self._seed, epoch))
        drawn = self._num_samples if self._classes is None else _equally_often(self._classes, rng)
        order: list[int] = rng.permutation(drawn)[: self._used].tolist()
        return order


def _equally_often(classes: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """As many indices as samples, the same number of every class, the rest of the division aside.

    A class that is large enough gives other samples in each epoch; a small one gives all of its samples several times.
    """
    present = rng.permutation(np.unique(classes))
    quota, extra = divmod(len(classes), len(present))
    drawn = []
    for position, number in enumerate(present):
        members = np.flatnonzero(classes == number)
        wanted = quota + (position < extra)
        rounds = -(-wanted // len(members))
        drawn.append(np.concatenate([rng.permutation(members) for _ in range(rounds)])[:wanted])
    return np.concatenate(drawn)
