"""Puts all copies of an image into one split (``data.tie_duplicates``)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from ftexp.audit.aligner import Effort, Note
from ftexp.audit.cache import FingerprintCache
from ftexp.audit.duplicates import Copies, by_pixels, find_copies
from ftexp.audit.edited_copies import find_aligned
from ftexp.audit.fingerprint_table import Fingerprints, FingerprintsByPath
from ftexp.audit.near_duplicates import NO_PAIRS, NearDuplicates
from ftexp.audit.pairs import components, differ, unique_pairs
from ftexp.config import AuditConfig
from ftexp.data.samples import Sample, SampleTable

log = logging.getLogger(__name__)

# The largest number of rounds; each finds copies that were hidden by nearer neighbours of an earlier round.
MAX_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Tied:
    """Samples that are split so that copies stay together.

    Attributes:
        samples: all samples, each with its split.
        sets: path -> the name of its set of copies, for every image that has a copy.
        copies: what the last search found among these samples. Splits share copies only where ``assign`` keeps a split
            that the data came with, or of the last round.
    """

    samples: SampleTable
    sets: dict[str, str]
    copies: Copies


def split_tied(
    samples: Sequence[Sample],
    config: AuditConfig,
    look: FingerprintsByPath,
    assign: Callable[[Mapping[str, str]], SampleTable],
) -> Tied:
    """Find copies, split the data so that they stay together, and repeat both while two splits share copies.

    The first search compares each image with the nearest of all images. A copy can be hidden there by images that are
    nearer, and comes to light when those are in its own split.

    Args:
        samples: all samples.
        config: names the cache, and says whether scenes are listed.
        look: the fingerprints of the samples.
        assign: splits the samples, given a path -> the name of its set of copies; images of one set stay together.
    """
    with closing(FingerprintCache(config.cache)) as cache:
        effort = Effort(cache)
        ties, _ = _sets_of_copies(samples, look.of(samples), effort)
        for number in range(1, MAX_ROUNDS + 1):
            assigned = assign(ties)
            copies = find_copies(assigned, look.of(assigned), effort, config.on_scene)
            pairs = [(one.path_a, one.path_b) for one in copies.findings if one.kind != "same_scene"]
            apart = [pair for pair in pairs if not (pair[0] in ties and ties[pair[0]] == ties.get(pair[1]))]
            if not apart or number == MAX_ROUNDS:
                break
            ties = join(ties, apart)
    splits_of: dict[str, set[str | None]] = defaultdict(set)
    for sample in assigned:
        if sample.path in ties:
            splits_of[ties[sample.path]].add(sample.split)
    num_apart = sum(len(splits) > 1 for splits in splits_of.values())
    kept = f", except for {num_apart} that the data's own test split has a part of" if num_apart else ""
    log.info(
        "audit   %d images have a copy; each of %d sets of copies is in one split%s.", len(ties), len(splits_of), kept
    )
    return Tied(assigned, ties, copies)


def tie_duplicates(
    samples: Sequence[Sample],
    prints: Fingerprints,
    effort: Effort | None = None,
    *,
    scenes: bool = False,
) -> dict[str, str]:
    """Find sets of copies.

    Args:
        samples: all samples.
        prints: their fingerprints, in the same order.
        effort: how much may be spent on aligning all images with their nearest; None: edited copies, which are found
            by it, are not searched.
        scenes: whether photographs of one scene belong together, too, and the images of a group.

    Returns:
        Path -> name of its set, for every image that has a copy, exact, near or edited, in the data.
    """
    sets, notes = _sets_of_copies(samples, prints, effort, scenes=scenes)
    for level, line in notes:
        log.log(level, line)
    return sets


def _sets_of_copies(
    samples: Sequence[Sample], prints: Fingerprints, effort: Effort | None, *, scenes: bool = False
) -> tuple[dict[str, str], list[Note]]:
    edges = [(members[0], other) for members in by_pixels(prints.pictures) for other in members[1:]]
    near, changed, by_hash = NearDuplicates(prints), None, [NO_PAIRS]
    component = components(edges, len(samples))
    for _ in range(MAX_ROUNDS):
        (found,) = near.search([partial(differ, component)], changed)
        by_hash.append(found.by_hash)
        if not found.near:
            break
        edges += [(i, j) for i, j, _ in found.near]
        component = components(edges, len(samples))
        # The nearest neighbours of all others are the same as before.
        changed = np.nonzero(np.isin(component, component[[i for i, _, _ in found.near]]))[0]
    notes: list[Note] = []
    if effort is not None:
        pairs = unique_pairs(*by_hash)
        pairs = pairs[component[pairs[:, 0]] != component[pairs[:, 1]]]
        everyone = np.ones(len(samples), dtype=bool)
        aligned = find_aligned(samples, prints, everyone, partial(differ, component), effort, pairs)
        notes = aligned.notes
        edges += [(one.first, one.second) for one in aligned.fitting if scenes or one.alignment.verdict == "edited"]
    if scenes:
        first_of = {sample.group: number for number, sample in reversed(list(enumerate(samples)))}
        edges += [(first_of[s.group], number) for number, s in enumerate(samples) if s.group is not None]
    component = components(edges, len(samples))
    sizes = np.bincount(component)
    numbered = zip(samples, component, strict=True)
    return {sample.path: str(number) for sample, number in numbered if sizes[number] > 1}, notes


def join(sets: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Join sets of images, path -> name of its set, by pairs of images; an image without a set is one by itself."""
    paths = list(dict.fromkeys([*sets, *(path for pair in pairs for path in pair)]))
    number = {path: index for index, path in enumerate(paths)}
    first_of: dict[str, int] = {}
    edges = [(first_of.setdefault(name, number[path]), number[path]) for path, name in sets.items()]
    edges += [(number[first], number[second]) for first, second in pairs]
    return dict(zip(paths, map(str, components(edges, len(paths))), strict=True))
