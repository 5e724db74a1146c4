"""Images of more than 8 bits a channel whose values use a small part of their range, and would be seen as black."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

FULL_SCALE_16_BITS = 65535.0
FULL_SCALE_FLOATS = 1.0
# A data set whose brightest value lies below this share of the full scale is warned of: 14 bits and fewer of 16.
DARK_SHARE = 0.26


@dataclass(frozen=True, slots=True)
class Peak:
    """How bright an image of more than 8 bits a channel is.

    Attributes:
        largest: its largest value.
        full_scale: the value that becomes white.
    """

    largest: float
    full_scale: float


@dataclass(frozen=True, slots=True)
class Depth:
    """What a file holds beyond an RGB image of 8 bits.

    Attributes:
        peak: None for up to 8 bits a channel.
        num_pages: pages of a TIFF, or frames of an animation; the image is the first.
    """

    peak: Peak | None = None
    num_pages: int = 1


def warn_of_unused_range(peaks: Sequence[Peak], white_level: float | None) -> None:
    """Say so where all images of more than 8 bits in a data set leave most of their range unused.

    One dark image is no reason: what counts is the brightest value of the whole data set.

    Args:
        peaks: of the images of more than 8 bits, in any number.
        white_level: ``data.white_level``.
    """
    if not peaks:
        if white_level is not None:
            log.warning("data    data.white_level=%g changes nothing: no image has more than 8 bits.", white_level)
        return
    for full_scale in sorted({peak.full_scale for peak in peaks}):
        alike = [peak.largest for peak in peaks if peak.full_scale == full_scale]
        largest = max(alike)
        if 0 < largest < DARK_SHARE * full_scale:
            log.warning(
                "data    %d image%s with more than 8 bits a channel hold values up to %g of %g, so the network sees "
                "them nearly black. If that is not meant, set data.white_level=%g, the value that is white.",
                len(alike),
                "s" * (len(alike) > 1),
                largest,
                full_scale,
                _next_full_scale(largest),
            )


def _next_full_scale(largest: float) -> float:
    """The smallest full scale of a number of bits, at least 8, that holds an integer; the value itself of floats."""
    if largest <= 1 or largest != int(largest):
        return largest
    return float(2 ** max(8, int(largest).bit_length()) - 1)
