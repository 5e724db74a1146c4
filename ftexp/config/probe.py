"""The schema of ``probe``: the commands that tell something before training, from features of the frozen network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING

from ftexp.config.check import check, refuse_empty


@dataclass(slots=True)
class ProbeConfig:
    """What the commands before training tell, such as ``ftexp.labels``; a run itself uses only ``odds`` of them."""

    # labels: a label is a suspect if another class is at least so many times as probable.
    odds: float = MISSING
    # labels: what cleaned.csv does with suspects: drop leaves them out, relabel gives them the likely label.
    cleaned: Literal["drop", "relabel"] = MISSING
    # labels: how many of the nearest images of other groups are listed for each image.
    neighbours: int = MISSING
    # labels: how many images the gallery shows.
    gallery: int = MISSING
    # compare_models: the networks, as models=[NAME,NAME@WEIGHTS].
    models: list[str] = field(default_factory=list)
    # cross_validate, compare_models, learning_curve: folds of each repeat, and how often new ones are drawn.
    folds: int = MISSING
    repeats: int = MISSING
    # cross_validate: train every fold by the stage, instead of a head on the frozen network.
    real_folds: bool = False
    # learning_curve: for how many more images the gain is estimated, at most as many as there are; null: three round
    # numbers.
    more: int | None = None
    # pick_images: the folder of images without labels, and how many of them are picked.
    unlabelled: str | None = None
    count: int = MISSING

    def __post_init__(self) -> None:
        check(self.odds > 1, "probe.odds", self.odds, "above 1")
        check(self.neighbours >= 1, "probe.neighbours", self.neighbours, "at least 1")
        check(self.gallery >= 1, "probe.gallery", self.gallery, "at least 1")
        check(self.folds >= 2, "probe.folds", self.folds, "at least 2")
        check(self.repeats >= 1, "probe.repeats", self.repeats, "at least 1")
        check(self.more is None or self.more >= 1, "probe.more", self.more, "null or at least 1")
        check(self.count >= 1, "probe.count", self.count, "at least 1")
        refuse_empty("probe.unlabelled", self.unlabelled)
