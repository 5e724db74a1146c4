"""The test split, which a run can use once: code that trains or selects cannot reach its samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from ftexp.data.digests import ContentDigests
from ftexp.data.samples import Sample, SampleTable


class TestSplit:
    """Holds the test samples and hands them out once.

    Code that trains, selects, prunes or sweeps gets this object; it can count the samples but not see them.

    Args:
        samples: all samples of the test split.
        digests: content digests of images that have been read already.
    """

    __slots__ = ("__digests", "__samples", "__used")
    __test__ = False  # pytest would take the class for a test case because of its name

    def __init__(self, samples: Iterable[Sample], digests: ContentDigests | None = None) -> None:
        self.__samples = SampleTable.of(samples)
        self.__digests = digests or ContentDigests()
        self.__used = False

    def __len__(self) -> int:
        return len(self.__samples)

    def __repr__(self) -> str:
        return f"TestSplit({len(self)} samples, {'used' if self.__used else 'unused'})"

    @property
    def num_samples(self) -> int:
        """The number of test samples."""
        return len(self.__samples)

    def content_digest(self) -> str:
        """One digest of all images and labels; the names and the order of the files do not change it."""
        return digest_of_test_set((self.__digests.of(sample), sample.label) for sample in self.__samples)

    def digests(self) -> Iterator[str]:
        """The content digest of each image, in the order of ``listing``."""
        return map(self.__digests.of, self.__samples)

    def take_samples(self) -> SampleTable:
        """Hand out the test samples, after all selection is done.

        Raises:
            RuntimeError: when they were handed out before; a run scores its test split once.
        """
        if self.__used:
            raise RuntimeError("The test split of this run has been used already; a run scores it once, at its end.")
        self.__used = True
        return self.__samples

    def listing(self) -> Iterator[dict[str, str]]:
        """Rows of paths and labels for ``splits.csv``; neither samples nor images."""
        for s in self.__samples:
            yield {"path": s.path, "label": s.label, "split": "test", "group": s.group or "", "time": s.time or ""}


def digest_of_test_set(images: Iterable[tuple[str, str]]) -> str:
    """The digest by which the test ledger knows a test set.

    Args:
        images: the content digest and the label of each, in any order.
    """
    lines = sorted(f"{digest} {label}\n" for digest, label in images)
    return hashlib.blake2b("".join(lines).encode(), digest_size=16).hexdigest()
