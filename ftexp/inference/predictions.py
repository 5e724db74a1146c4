"""What a classifier answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: the likeliest class; None where the image could not be read.
        probability: of that class; NaN where the image could not be read.
        top: the likeliest classes with their probabilities, as many as ``top_k`` asked for, the likeliest first.
        probabilities: float32 [C], of all classes in the classifier's order; empty where the image could not be read.
        path: of the file; None where the image was not given as one.
        error: why the image could not be read; None where it could.
    """

    label: str | None
    probability: float
    top: tuple[tuple[str, float], ...] = ()
    probabilities: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32), repr=False)
    path: str | None = None
    error: str | None = None

    @classmethod
    def of(
        cls, probabilities: npt.NDArray[np.float32], classes: Sequence[str], top_k: int, path: str | None
    ) -> Prediction:
        """From the probabilities of one image, float32 [C]; of equal ones the first class is taken."""
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        top = tuple((classes[index], float(probabilities[index])) for index in order)
        return cls(top[0][0], top[0][1], top, probabilities, path)

    @classmethod
    def unreadable(cls, error: str, path: str | None) -> Prediction:
        """For an image that could not be read."""
        return cls(None, float("nan"), path=path, error=error)


class Predictions(Sequence[Prediction]):
    """The answers for several images, in the order in which the images were given."""

    def __init__(self, predictions: Iterable[Prediction], classes: Sequence[str]) -> None:
        self._predictions = list(predictions)
        self.classes = tuple(classes)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Predictions: ...
    def __getitem__(self, index: int | slice) -> Prediction | Predictions:
        if isinstance(index, slice):
            return Predictions(self._predictions[index], self.classes)
        return self._predictions[index]

    def __len__(self) -> int:
        return len(self._predictions)

    def __repr__(self) -> str:
        shown = ", ".join(f"{one.label} {one.probability:.3f}" for one in self._predictions[:3])
        more = f", and {len(self) - 3} more" if len(self) > 3 else ""
        return f"Predictions({shown}{more})"

    def to_pandas(self) -> pd.DataFrame:
        """A table with a row per image.

        Returns:
            Columns ``path``, ``label``, ``probability``; ``label_2``, ``probability_2`` and so on where ``top_k`` asked
            for more; ``p(CLASS)`` for every class; ``error``.
        """
        import pandas as pd

        table = pd.DataFrame(
            {
                "path": pd.Series([one.path for one in self], dtype=object),
                "label": pd.Series([one.label for one in self], dtype=object),
                "probability": np.array([one.probability for one in self], float),
            }
        )
        for place in range(1, max((len(one.top) for one in self), default=1)):
            pairs = [one.top[place] if place < len(one.top) else (None, float("nan")) for one in self]
            table[f"label_{place + 1}"], table[f"probability_{place + 1}"] = zip(*pairs, strict=True)
        none = np.full(len(self.classes), np.nan, np.float32)
        values = np.array([one.probabilities if one.error is None else none for one in self], np.float32)
        values = values.reshape(len(self), len(self.classes))
        probabilities = pd.DataFrame(values, columns=[f"p({name})" for name in self.classes])
        return pd.concat(
            [table, probabilities, pd.Series([one.error for one in self], name="error", dtype=object)], axis=1
        )
