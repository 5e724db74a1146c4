"""The handwritten digits of scikit-learn: real images that need no download."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from ftexp.data.samples import Sample


def read_digits() -> list[Sample]:
    """List all 1,797 digits, white on black, as RGB images of 8 x 8 pixels with a margin of one pixel.

    The strokes reach the edge of the 8 x 8 pixels; without the margin, the centre crop would cut them.

    Source: UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak), shipped with scikit-learn.
    """
    digits = load_digits()
    # Values are from 0 to 16: the number of ink pixels in a 4 x 4 cell of the scan.
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    rgb = np.repeat(np.pad(grey, ((0, 0), (1, 1), (1, 1)))[..., np.newaxis], 3, axis=-1)
    return [
        Sample(path=f"digits/{index:04d}", label=str(label), pixels=pixels)
        for index, (label, pixels) in enumerate(zip(digits.target.tolist(), rgb, strict=True))
    ]
