"""The schema of ``probe``: the commands that tell something before training, from features of the frozen network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING

from ftexp.config.check import check


@dataclass(slots=True)
class ProbeConfig:
    """What ``ftexp.labels`` and ``ftexp.cross_validate`` tell; a run does not read it."""

    # labels: a label is a suspect if another class is at least so many times as probable.
    odds: float = MISSING
    # labels: what cleaned.csv does with suspects: drop leaves them out, relabel gives them the likely label.
    cleaned: Literal["drop", "relabel"] = MISSING
    # labels: how many of the nearest images of other groups are told of each image.
    neighbours: int = MISSING
    # labels: how many images the gallery shows.
    gallery: int = MISSING
    # cross_validate: folds of each repeat, and how often new ones are drawn.
    folds: int = MISSING
    repeats: int = MISSING

    def __post_init__(self) -> None:
        check(self.odds > 1, "probe.odds", self.odds, "above 1")
        check(self.neighbours >= 1, "probe.neighbours", self.neighbours, "at least 1")
        check(self.gallery >= 1, "probe.gallery", self.gallery, "at least 1")
        check(self.folds >= 2, "probe.folds", self.folds, "at least 2")
        check(self.repeats >= 1, "probe.repeats", self.repeats, "at least 1")
