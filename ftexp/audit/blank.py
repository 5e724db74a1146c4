"""Finds blank images: of one colour, nearly black, or nearly all white."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ftexp.audit.findings import Finding
from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.data.samples import Sample

# Limits for the 64 x 64 thumbnail, in gray levels from 0 to 255.
MAX_SPREAD_OF_ONE_COLOUR = 1
MAX_LEVEL_OF_BLACK = 15
MIN_LEVEL_OF_WHITE = 253
MIN_SHARE_OF_WHITE = 0.99
CHUNK = 1024


def find_blank_images(samples: Sequence[Sample], prints: Fingerprints) -> list[Finding]:
    """Find blank images by their thumbnails; returns one warning for each."""
    kinds = [
        (sample, _kind(thumbnail))
        for start in range(0, len(samples), CHUNK)
        for sample, thumbnail in zip(
            samples[start : start + CHUNK],
            prints.thumbnails(range(start, min(start + CHUNK, len(samples)))),
            strict=True,
        )
    ]
    return [Finding(kind, "warn", sample.split or "", sample.path, "", "", 1.0) for sample, kind in kinds if kind]


def _kind(thumbnail: npt.NDArray[np.uint8]) -> str | None:
    low, high = int(thumbnail.min()), int(thumbnail.max())
    if high - low <= MAX_SPREAD_OF_ONE_COLOUR:
        return "one_colour"
    if high <= MAX_LEVEL_OF_BLACK:
        return "black"
    if np.mean(thumbnail >= MIN_LEVEL_OF_WHITE) >= MIN_SHARE_OF_WHITE:
        return "saturated"
    return None
