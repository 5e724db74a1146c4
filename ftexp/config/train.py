"""The schema of ``augment`` and ``train``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING

from ftexp.config.check import check
from ftexp.errors import ConfigError, nearest
from ftexp.evaluation.metric_names import METRICS


@dataclass(slots=True)
class AugmentConfig:
    """Random changes to the training images. Validation and test images are never changed."""

    # Smallest share of the image's area that a random crop keeps; 1: the weights' own centre crop.
    crop_scale: float = 1.0
    horizontal_flip: float = 0.0
    # Strength of brightness, contrast and saturation jitter; 0: none.
    color_jitter: float = 0.0
    # Random operations on geometry and colour: trivial: one of any strength (TrivialAugment, Müller & Hutter, 2021);
    # rand: two of medium strength (RandAugment, Cubuk et al., 2020).
    policy: Literal["none", "trivial", "rand"] = "none"
    # Probability that a rectangle of the image is blanked out (Zhong et al., 2020).
    erasing: float = 0.0
    # The alpha of mixup (Zhang et al., 2018) and of CutMix (Yun et al., 2019): images of a batch are blended in pairs,
    # or exchange a rectangle, and their targets with them; the larger, the more evenly; 0: off. Both: by turns.
    mixup: float = 0.0
    cutmix: float = 0.0
    # How many random views of an image there are; epoch e shows number e modulo views. inf: every epoch its own. A
    # number: what frozen blocks make of each view is kept, see runtime.cache. auto: 8 where they can be kept and fit
    # into runtime.cache_gib, else inf.
    views: int | float | str = "auto"

    @property
    def changes_images(self) -> bool:
        """Whether images are changed one by one."""
        strengths = self.horizontal_flip, self.color_jitter, self.erasing
        return self.crop_scale < 1 or self.policy != "none" or max(strengths) > 0

    @property
    def mixes_batches(self) -> bool:
        """Whether the images of a batch are mixed with one another."""
        return max(self.mixup, self.cutmix) > 0

    def image_changes(self) -> str:
        """All that the views of an image follow from, as a name."""
        return f"{self.crop_scale} {self.horizontal_flip} {self.color_jitter} {self.policy} {self.erasing}"

    @property
    def is_random(self) -> bool:
        """Whether an image looks different from epoch to epoch."""
        return self.changes_images or self.mixes_batches

    @property
    def num_views(self) -> int | None:
        """How many views are asked for; None: as many as epochs, or ``auto``."""
        return self.views if isinstance(self.views, int) else None

    def __post_init__(self) -> None:
        check(0 < self.crop_scale <= 1, "augment.crop_scale", self.crop_scale, "above 0 and at most 1")
        check(0 <= self.horizontal_flip <= 1, "augment.horizontal_flip", self.horizontal_flip, "a probability, 0 to 1")
        check(0 <= self.color_jitter <= 1, "augment.color_jitter", self.color_jitter, "0 to 1")
        check(0 <= self.erasing <= 1, "augment.erasing", self.erasing, "a probability, 0 to 1")
        check(self.mixup >= 0, "augment.mixup", self.mixup, "0 or above")
        check(self.cutmix >= 0, "augment.cutmix", self.cutmix, "0 or above")
        if self.views == math.inf:  # Hydra reads inf as a number
            self.views = "inf"
        number = isinstance(self.views, int) and not isinstance(self.views, bool) and self.views >= 1
        check(number or self.views in ("auto", "inf"), "augment.views", self.views, "auto, inf or a number from 1")


@dataclass(slots=True)
class TrainConfig:
    """The loop."""

    # Images per step. auto: the largest power of two that fits into memory, as long as an epoch keeps 16 updates.
    batch_size: int | str = MISSING
    # Largest norm of the gradient over all trainable parameters; null: no clipping.
    clip_norm: float | None = MISSING
    # Of the validation split; decides which checkpoint is the best. One of ftexp/evaluation/metric_names.py.
    metric: str = MISSING
    # Batches whose gradients are averaged into one update, as if they were one batch; BatchNorm still sees each alone.
    accumulate: int = MISSING
    # Epochs without a better metric after which a phase ends early; null: it runs to its end. The schedule does not
    # change: it is the one planned for all epochs.
    patience: int | None = MISSING
    # Minutes after which training saves within an epoch, too; null: at the end of each epoch alone.
    save_every_minutes: float | None = MISSING
    # How often in a phase an epoch whose training or validation loss is not finite is begun again, from the weights
    # before it and at half the rates; then the run fails.
    nan_retries: int = MISSING
    # How much of the running average of the weights an update keeps, such as 0.999; the average is what is scored and
    # saved. null: no averaging.
    ema: float | None = MISSING
    # Strength of a pull of the learning backbone weights towards those at the run's start, in the place of their weight
    # decay, which pulls towards 0 (L2-SP, Li et al., 2018); null: no pull. It is no part of the loss that is shown.
    l2_sp: float | None = MISSING
    # Shares of the end to try in an average of the backbone at the run's start and at its end; validation chooses
    # among them and 1, the end alone (WiSE-FT, Wortsman et al., 2022); []: no averaging.
    wise_ft: list[float] = MISSING

    @property
    def images_per_step(self) -> int:
        """The batch size, once it is settled."""
        assert isinstance(self.batch_size, int), "auto is settled before anything is loaded in batches"
        return self.batch_size

    @property
    def needs_starting_weights(self) -> bool:
        """Whether a copy of the starting weights is needed, for L2-SP or WiSE-FT."""
        return self.l2_sp is not None or bool(self.wise_ft)

    def __post_init__(self) -> None:
        size = self.batch_size
        if self.metric not in METRICS:
            raise ConfigError(
                f"train.metric={self.metric}: there is no such metric.{nearest(self.metric, METRICS)}"
                f" Allowed are {', '.join(METRICS)}."
            )
        number = isinstance(size, int) and not isinstance(size, bool) and size >= 1
        check(number or size == "auto", "train.batch_size", size, "at least 1, or auto")
        minutes = self.save_every_minutes
        check(minutes is None or minutes >= 0, "train.save_every_minutes", minutes, "0 or above, or null")
        check(self.nan_retries >= 0, "train.nan_retries", self.nan_retries, "0 or above")
        check(
            self.clip_norm is None or self.clip_norm > 0,
            "train.clip_norm",
            self.clip_norm,
            "above 0, or null for no clipping",
        )
        check(self.accumulate >= 1, "train.accumulate", self.accumulate, "at least 1")
        check(self.patience is None or self.patience >= 1, "train.patience", self.patience, "at least 1, or null")
        check(self.ema is None or 0 < self.ema < 1, "train.ema", self.ema, "above 0 and below 1, or null")
        check(self.l2_sp is None or self.l2_sp > 0, "train.l2_sp", self.l2_sp, "above 0, or null")
        check(all(0 <= alpha < 1 for alpha in self.wise_ft), "train.wise_ft", self.wise_ft, "shares from 0 to below 1")
