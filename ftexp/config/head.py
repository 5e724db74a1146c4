"""The schema of ``head``: how the last layer is found on a frozen network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING

from ftexp.config.check import check


@dataclass(slots=True)
class HeadConfig:
    """The head on frozen features is a convex problem; it can be solved to the optimum instead of searched by steps."""

    # How a phase with learn=head trains. solved: logistic regression on the features of the frozen network, to the
    # optimum, with the strength of its penalty chosen on the validation set. sgd: steps of the optimizer. auto: solved
    # if the stage has no other phase and no setting is given that only sgd has, such as stage.epochs or optimizer.*, or
    # if the phase has solve: true; else sgd, and a log line says why.
    solver: Literal["auto", "solved", "sgd"] = MISSING
    # What the head of the first phase starts from. random: the usual random weights. solved: the optimum on the
    # features of the pretrained network.
    init: Literal["random", "solved"] = MISSING
    # The strength of the penalty of a solved head, strength / 2 * |W|^2 beside the mean loss, for features whose mean
    # variance is 1; null: chosen on the validation set, from a dozen.
    strength: float | None = None
    # What the last layer gets. last: the features that the network itself has there. all: also the outputs of its other
    # blocks, averaged over their places and scaled by the training images. auto: where the head is solved before
    # anything else learns, all if cross-validation on train prefers it by more than one standard error; else last.
    depth: Literal["last", "all", "auto"] = MISSING
    # The most memory that solving may take, in GiB; with solver=auto, features that need more are left to sgd.
    max_gib: float = MISSING

    def __post_init__(self) -> None:
        check(self.strength is None or self.strength > 0, "head.strength", self.strength, "null, or above 0")
        check(self.max_gib > 0, "head.max_gib", self.max_gib, "above 0")
