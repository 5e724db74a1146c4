"""Recognises the usual names of splits."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Usual word -> the name of the split in ftexp.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainval", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating"), "val"),
    **dict.fromkeys(("dev", "devel", "development", "eval", "evaluation", "evaluate"), "val"),
    **dict.fromkeys(("test", "tests", "testing", "tst", "holdout"), "test"),
}
# Words that do not change the meaning: train_set, test-images, val2017, "Training data".
_FILLERS = frozenset(("set", "data", "dataset", "split", "image", "images", "img", "imgs", "folder", "pictures"))
_GLUED = re.compile(rf"({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})({'|'.join(sorted(_FILLERS))})?")


def split_of(name: str) -> str | None:
    """The split that a usual name means, in upper or lower case; None for any other name."""
    splits, rest = _split_words(name)
    return splits[0] if len(splits) == 1 and _FILLERS.issuperset(rest) else None


def splits_of(names: Iterable[str]) -> dict[str, str | None]:
    """The split that each of these names means, with all names considered together.

    Longer names count if they name several splits: ``cars_train`` beside ``cars_test``, but not beside ``cars``.
    """
    strict = {name: split_of(name) for name in names}
    loose = {name: found[0] if len(found := _split_words(name)[0]) == 1 else None for name in strict}
    meant = {split for split in loose.values() if split is not None}
    return loose if "train" in meant and len(meant) > 1 else strict


def _split_words(name: str) -> tuple[list[str], list[str]]:
    """The splits that the words of a name mean, and its other words."""
    splits, rest = [], []
    for word in re.split(r"[\W_]+|[0-9]+", name.casefold()):
        glued = _GLUED.fullmatch(word)
        if glued:
            splits.append(SPLIT_WORDS[glued[1]])
        elif word:
            rest.append(word)
    return splits, rest
