"""What comes of opening an exported file."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class OpenedFile(NamedTuple):
    """An exported file in its own runtime.

    Attributes:
        compute: RGB pixels, uint8 [N, H, W, 3] -> probabilities, float32 [N, C].
        texts: of ``ExportMetadata``, as they stand in the file.
    """

    compute: Callable[[Pixels], Floats]
    texts: dict[str, str]
