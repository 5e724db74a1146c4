"""Which columns a table of predictions has, and the row of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftexp.errors import ConfigError
from ftexp.inference.predictions import Prediction

PATH, LABEL, PROBABILITY, LIKELIEST, ERROR = "path", "label", "probability", "likeliest", "error"
Value = str | np.float32 | None
Row = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a table of predictions.

    Args:
        classes: names of the classes, in the classifier's order.
        top_k: how many of the likeliest classes have columns; at most all of them.
        threshold: a label that is less probable is left empty, and ``likeliest`` names it; None: there is no such
            column, and the likeliest class is always the label.
        all_probabilities: a column ``p(CLASS)`` for every class.

    Raises:
        ConfigError: when ``top_k`` is below 1.
    """

    classes: tuple[str, ...]
    top_k: int = 1
    threshold: float | None = None
    all_probabilities: bool = False

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ConfigError(f"--top-k {self.top_k}: it has to be at least 1.")
        assert self.threshold is None or 0 <= self.threshold <= 1, "the command checks it"

    @property
    def columns(self) -> dict[str, bool]:
        """Name of every column, in order -> whether it holds numbers."""
        likeliest = {LIKELIEST: False} if self.threshold is not None else {}
        others: dict[str, bool] = {}
        for place in range(2, 1 + min(self.top_k, len(self.classes))):
            others |= {f"{LABEL}_{place}": False, f"{PROBABILITY}_{place}": True}
        every = {f"p({name})": True for name in self.classes} if self.all_probabilities else {}
        return {PATH: False, LABEL: False, PROBABILITY: True, **likeliest, **others, **every, ERROR: False}

    def row(self, prediction: Prediction) -> Row:
        """The values of one image, in the order of the columns; None where there is none."""
        path = written_path(prediction.path or "")
        if prediction.error is not None:
            return (path, *[None] * (len(self.columns) - 2), printable(prediction.error))
        likeliest = () if self.threshold is None else (prediction.label,)
        others = [value for name, p in prediction.top[1 : self.top_k] for value in (name, np.float32(p))]
        every = prediction.probabilities if self.all_probabilities else ()
        return (path, self.label(prediction), np.float32(prediction.probability), *likeliest, *others, *every, None)

    def label(self, prediction: Prediction) -> str | None:
        """The class that is answered; None below the threshold, and for an image that cannot be read."""
        if prediction.error is not None or (self.threshold is not None and prediction.probability < self.threshold):
            return None
        return prediction.label


def written_path(path: str) -> str:
    r"""A path as tables hold it: bytes that are no UTF-8 are written as ``\udcff``, which every reader takes."""
    return path.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """Text for one line of a terminal: control characters are written as escapes."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
