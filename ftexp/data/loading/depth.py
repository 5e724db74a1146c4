"""Warns of images with more than 8 bits per channel that use a small part of their range and would look black."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

FULL_SCALE_16_BITS = 65535.0
FULL_SCALE_FLOATS = 1.0
# An image whose brightest value is below this fraction of the full scale is dark: it uses at most 14 of 16 bits.
DARK_SHARE = 0.26


@dataclass(frozen=True, slots=True)
class Peak:
    """The brightness of an image with more than 8 bits per channel.

    Attributes:
        largest: the largest value in the image.
        full_scale: the value that becomes white.
    """

    largest: float
    full_scale: float


@dataclass(frozen=True, slots=True)
class Depth:
    """What a file contains besides an RGB image of 8 bits.

    Attributes:
        peak: the brightness of the image; None if it has at most 8 bits per channel.
        num_pages: the number of pages of a TIFF or frames of an animation; only the first is used.
    """

    peak: Peak | None = None
    num_pages: int = 1


# That of most files.
PLAIN = Depth()


def warn_of_unused_range(peaks: Sequence[Peak], white_level: float | None) -> None:
    """Warn if most images with more than 8 bits in a dataset leave most of their range unused.

    Single dark images cause no warning, and single bright ones, such as those with a hot pixel, do not hide it.

    Args:
        peaks: the peaks of all images with more than 8 bits; may be empty.
        white_level: the value of ``data.white_level``.
    """
    if not peaks:
        if white_level is not None:
            log.warning("data    data.white_level=%g has no effect: no image has more than 8 bits.", white_level)
        return
    for full_scale in sorted({peak.full_scale for peak in peaks}):
        alike = [peak.largest for peak in peaks if peak.full_scale == full_scale]
        dark = [largest for largest in alike if largest < DARK_SHARE * full_scale]
        if 2 * len(dark) > len(alike) and max(dark) > 0:
            _warn_of_dark(alike, max(dark), full_scale)


def _warn_of_dark(alike: Sequence[float], largest: float, full_scale: float) -> None:
    """Warn of images whose values go up to ``largest``, and say how many others the suggested level would exclude."""
    level = _next_full_scale(largest)
    num_dark = sum(value <= largest for value in alike)
    num_above = sum(value > level for value in alike)
    log.warning(
        "data    %s%d image%s with more than 8 bits per channel: the largest value is %g of %g, so they look "
        "nearly black to the network. If this is not intended, set data.white_level=%g, the value of white%s.",
        f"{num_dark} of " if num_dark < len(alike) else "",
        len(alike),
        "s" * (len(alike) > 1),
        largest,
        full_scale,
        level,
        f"; {num_above} with larger values will then count as bad" if num_above else "",
    )


def _next_full_scale(largest: float) -> float:
    """The smallest full scale 2**bits - 1, with at least 8 bits, that is not below an integer; floats unchanged."""
    if largest <= 1 or largest != int(largest):
        return largest
    return float(2 ** max(8, int(largest).bit_length()) - 1)
