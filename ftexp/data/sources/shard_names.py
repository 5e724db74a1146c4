"""The files that ``data.shards`` names: ranges and choices in braces, globs, folders and URLs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from ftexp.data.remote import is_url, matching_urls, reason_of
from ftexp.data.samples import sorted_naturally
from ftexp.data.sources.split_names import splits_of
from ftexp.errors import DataError, listed

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")


def find_shards(setting: str, given: str) -> list[str]:
    """The tars that a pattern stands for, each once.

    Args:
        setting: the name of the setting, for messages.
        given: such as ``shards/train-{000..010}.tar``, ``shards/*.tar``, a folder, or a URL like ``s3://bucket/*.tar``.

    Raises:
        DataError: when a file is missing or named twice, or nothing matches.
    """
    literal = os.path.expanduser(given)
    if os.path.isfile(literal):  # whatever signs its name has
        return [literal]
    shards: list[str] = []
    missing: list[str] = []
    for pattern in expand_braces(given):
        found = _matching(setting, os.path.expanduser(pattern))
        shards += found
        missing += [] if found else [os.path.join(pattern, "*.tar") if os.path.isdir(pattern) else pattern]
    if missing:
        raise DataError(f"{setting}={given}: no file is named {listed(missing, 5)}.")
    twice = sorted({shard for shard in shards if shards.count(shard) > 1}) if len(set(shards)) < len(shards) else []
    if twice:
        raise DataError(f"{setting}={given} names a file twice: {listed(twice, 5)}.")
    return shards


def expand_braces(pattern: str) -> list[str]:
    """The texts that a pattern with ``{000..010}`` or ``{train,val}`` stands for, as the shell makes them."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    numbers = _RANGE.fullmatch(found[1])
    if numbers is not None:
        first, last = int(numbers[1]), int(numbers[2])
        is_padded = any(len(end) > 1 and end[0] == "0" for end in numbers.groups())
        width = max(map(len, numbers.groups())) if is_padded else 0
        step = 1 if first <= last else -1
        choices = [f"{n:0{width}d}" for n in range(first, last + step, step)]
    else:
        choices = found[1].split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [text for choice in choices for text in expand_braces(f"{before}{choice}{after}")]


def split_names(shards: Sequence[str]) -> list[str | None]:
    """The split that the name of each shard means, such as ``train-000.tar``; else that of its folder."""
    for names in ([PurePosixPath(s).stem for s in shards], [PurePosixPath(s).parent.name for s in shards]):
        splits = splits_of(names)
        if any(split is not None for split in splits.values()):
            return [splits[name] for name in names]
    return [None] * len(shards)


def find_urls(where: str, pattern: str) -> list[str]:
    """The URLs that a pattern with ``*`` or ``[`` matches; one without is the only one.

    Args:
        where: what names it, for messages.
        pattern: the URL or the pattern.

    Raises:
        DataError: when the server cannot say.
    """
    if not any(letter in pattern for letter in "*["):  # a ? begins the query of a URL
        return [pattern]
    try:
        return sorted_naturally(matching_urls(pattern))
    except OSError as error:
        raise DataError(f"{where}: {reason_of(error)}.") from error


def _matching(setting: str, pattern: str) -> list[str]:
    if is_url(pattern):
        return find_urls(f"{setting}={pattern}", pattern)
    if os.path.isdir(pattern):
        return sorted_naturally(glob.glob(os.path.join(glob.escape(pattern), "*.tar")))
    return [pattern] if os.path.exists(pattern) else sorted_naturally(glob.glob(pattern, recursive=True))
