"""The picture of the most wrong images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ftexp.inference.given import GivenImage
from ftexp.report.most_wrong import WrongImage, draw_most_wrong


def test_names_with_dollar_signs_are_no_formulas(tmp_path: Path) -> None:
    image = GivenImage(np.full((8, 8, 3), 200, np.uint8), "pictures/x$^$.jpg")
    draw_most_wrong([WrongImage(image, "a$_$", "b$^$", 0.9, 0.1)], tmp_path / "most_wrong.png")
    assert min(Image.open(tmp_path / "most_wrong.png").size) > 100
