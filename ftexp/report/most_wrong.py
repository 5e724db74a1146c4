"""The images that a classifier got most wrong, with what it said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ftexp.errors import DataError
from ftexp.inference.given import GivenImage
from ftexp.report.plots import GREY, save, short_name

COLUMNS = 5
SIDE_PIXELS = 256


@dataclass(frozen=True, slots=True)
class WrongImage:
    """An image with a wrong answer.

    Attributes:
        label, prediction: names of the true class and of the one that the classifier said.
        probability, probability_of_label: what it gave each.
    """

    image: GivenImage
    label: str
    prediction: str
    probability: float
    probability_of_label: float


def draw_most_wrong(images: Sequence[WrongImage], path: Path) -> None:
    """Draw thumbnails with what they are and what was said of them; nothing where there are none.

    Args:
        images: in the order in which they are drawn, row by row.
        path: the PNG to write.
    """
    if not images:
        return
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(max(2.3 * columns, 3.2), 2.75 * rows), dpi=110, layout="constrained")
    for axes, one in zip(figure.subplots(rows, columns, squeeze=False).flat, images, strict=False):
        axes.imshow(_thumbnail(one.image))
        axes.set_title(
            f"{short_name(one.label)} {one.probability_of_label:.2f}\nsaid {short_name(one.prediction)} "
            f"{one.probability:.2f}",
            fontsize=8,
            parse_math=False,
        )
        name = short_name(Path(one.image.path).name) if one.image.path else ""
        axes.set_xlabel(name, fontsize=6, color=GREY, parse_math=False)
    for axes in figure.axes:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_frame_on(False)
    save(figure, path)


def _thumbnail(image: GivenImage) -> Image.Image:
    """Small enough for the page; grey where the file is gone since it was scored."""
    try:
        opened = image.open()
    except DataError:
        return Image.fromarray(np.full((SIDE_PIXELS, SIDE_PIXELS, 3), 200, np.uint8))
    opened.thumbnail((SIDE_PIXELS, SIDE_PIXELS))
    return opened
