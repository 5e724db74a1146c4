"""The test split, out of reach until everything has been decided."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ftexp.data.digests import ContentDigests
from ftexp.data.samples import Sample


class SealedTest:
    """Holds the test samples and gives them out once.

    Code that trains, selects, prunes or sweeps gets this object and can do no more with it than count.

    Args:
        digests: of images that have been read already.
    """

    __slots__ = ("__digests", "__opened", "__samples")

    def __init__(self, samples: Iterable[Sample], digests: ContentDigests | None = None) -> None:
        self.__samples = list(samples)
        self.__digests = digests or ContentDigests()
        self.__opened = False

    def __len__(self) -> int:
        return len(self.__samples)

    def __repr__(self) -> str:
        return f"SealedTest({len(self)} samples, {'opened' if self.__opened else 'sealed'})"

    @property
    def num_samples(self) -> int:
        """How many there are."""
        return len(self.__samples)

    def content_digest(self) -> str:
        """Names these images and labels by their content, whatever the files are called and in whatever order."""
        digests = sorted(f"{self.__digests.of(sample)} {sample.label}\n" for sample in self.__samples)
        return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()

    def digests(self) -> dict[str, str]:
        """The name of each image's content, by its path."""
        return {sample.path: self.__digests.of(sample) for sample in self.__samples}

    def open(self) -> list[Sample]:
        """The test samples, after selection is done.

        Raises:
            RuntimeError: when opened before; a run scores its test split once.
        """
        if self.__opened:
            raise RuntimeError("The test split of this run has been opened already; a run scores it once, at its end.")
        self.__opened = True
        return self.__samples

    def listing(self) -> list[dict[str, str]]:
        """Names and labels as ``splits.csv`` shows them; not the samples, and no images."""
        return [
            {"path": s.path, "label": s.label, "split": "test", "group": s.group or "", "time": s.time or ""}
            for s in self.__samples
        ]
