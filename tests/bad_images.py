"""The images that the check before a run finds bad."""

from __future__ import annotations

from collections.abc import Sequence

from ftexp.data.loading.limits import ImageLimits
from ftexp.data.loading.screening import decode_all
from ftexp.data.samples import Sample

DEFAULT = ImageLimits()


def find_bad_images(
    samples: Sequence[Sample], workers: int = 2, limits: ImageLimits = DEFAULT
) -> list[tuple[Sample, str]]:
    """The bad samples in the given order, each with the reason."""
    seen = zip(samples, decode_all(samples, workers, limits), strict=True)
    return [(sample, reason) for sample, reason in seen if isinstance(reason, str)]
