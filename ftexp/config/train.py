"""The schema of ``augment`` and ``train``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal, get_args, get_type_hints

from omegaconf import MISSING

from ftexp.config.check import check
from ftexp.errors import ConfigError, nearest
from ftexp.metric_names import METRICS


@dataclass(slots=True)
class AnyAugmentConfig:
    """Random changes to the training images. Validation and test images are never changed."""


@dataclass(slots=True)
class AugmentConfig(AnyAugmentConfig):
    """Random changes of chosen strengths."""

    # The smallest fraction of the image's area that a random crop keeps; 1: no random crop, but the centre crop of the
    # weights.
    crop_scale: float = 1.0
    # The probability that an image is mirrored.
    horizontal_flip: float = 0.0
    # The strength of the jitter of brightness, contrast and saturation; 0: none.
    color_jitter: float = 0.0
    # Random operations on geometry and colour. trivial: one of random strength (TrivialAugment, Müller & Hutter, 2021);
    # rand: two of medium strength (RandAugment, Cubuk et al., 2020).
    policy: Literal["none", "trivial", "rand"] = "none"
    # The probability that a random rectangle of the image is erased (Zhong et al., 2020).
    erasing: float = 0.0
    # The alpha of mixup (Zhang et al., 2018) and of CutMix (Yun et al., 2019), which blend pairs of images or exchange
    # a rectangle between them, and mix their targets in proportion. The larger alpha, the more even the mix; 0: off.
    # With both, each batch uses one of the two.
    mixup: float = 0.0
    cutmix: float = 0.0
    # The number of random views (augmented versions) of an image; epoch e uses view e modulo this number. inf: every
    # epoch has new views. With a number, the activations of frozen blocks are cached for each view (see runtime.cache).
    # auto: 8 if they can be cached and fit into runtime.cache_gib, else inf.
    views: int | float | str = "auto"

    @property
    def changes_images(self) -> bool:
        """Whether single images are augmented."""
        strengths = self.horizontal_flip, self.color_jitter, self.erasing
        return self.crop_scale < 1 or self.policy != "none" or max(strengths) > 0

    @property
    def mixes_batches(self) -> bool:
        """Whether the images of a batch are mixed with each other."""
        return max(self.mixup, self.cutmix) > 0

    def image_changes(self) -> str:
        """A text that identifies all settings that the views of an image depend on."""
        return f"{self.crop_scale} {self.horizontal_flip} {self.color_jitter} {self.policy} {self.erasing}"

    @property
    def is_random(self) -> bool:
        """Whether an image looks different from epoch to epoch."""
        return self.changes_images or self.mixes_batches

    @property
    def num_views(self) -> int | None:
        """The number of views, if the user gave one; None for ``inf`` and ``auto``."""
        return self.views if isinstance(self.views, int) else None

    def __post_init__(self) -> None:
        check(0 < self.crop_scale <= 1, "augment.crop_scale", self.crop_scale, "above 0 and at most 1")
        check(0 <= self.horizontal_flip <= 1, "augment.horizontal_flip", self.horizontal_flip, "a probability, 0 to 1")
        check(0 <= self.color_jitter <= 1, "augment.color_jitter", self.color_jitter, "0 to 1")
        check(0 <= self.erasing <= 1, "augment.erasing", self.erasing, "a probability, 0 to 1")
        check(self.mixup >= 0, "augment.mixup", self.mixup, "0 or above")
        check(self.cutmix >= 0, "augment.cutmix", self.cutmix, "0 or above")
        if self.views == math.inf:  # Hydra parses inf as a number
            self.views = "inf"
        number = isinstance(self.views, int) and not isinstance(self.views, bool) and self.views >= 1
        check(number or self.views in ("auto", "inf"), "augment.views", self.views, "auto, inf, or at least 1")


@dataclass(slots=True)
class AutoAugmentConfig(AnyAugmentConfig):
    """Random changes whose strengths follow from the recipe, by ``recipe.augment``; a number in place of auto wins."""

    crop_scale: int | float | str = "auto"
    horizontal_flip: int | float | str = "auto"
    color_jitter: int | float | str = "auto"
    policy: str = "auto"
    erasing: int | float | str = "auto"
    mixup: int | float | str = "auto"
    cutmix: int | float | str = "auto"
    views: int | float | str = "auto"
    # Options of the group augment, by the names that recipe.augment uses.
    strengths: dict[str, AugmentConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settled(AugmentConfig())  # which checks what was given

    def settled(self, decided: AugmentConfig) -> AugmentConfig:
        """The given settings, and the decided ones in place of auto.

        Raises:
            ConfigError: for a value that is not allowed.
        """
        given = {one.name: getattr(self, one.name) for one in fields(AugmentConfig)}
        values = {name: getattr(decided, name) if value == "auto" else value for name, value in given.items()}
        for name, value in values.items():
            if name not in ("policy", "views") and isinstance(value, str):
                raise ConfigError(f"augment.{name}={value} is not allowed: it must be auto, or a number.")
        allowed = get_args(get_type_hints(AugmentConfig)["policy"])
        check(values["policy"] in allowed, "augment.policy", values["policy"], f"auto, {', '.join(allowed)}")
        return AugmentConfig(**{**values, "views": self.views})  # of which auto is a value


@dataclass(slots=True)
class TrainConfig:
    """The training loop."""

    # The number of images per step, of all processes together. auto: the largest power of two that fits into memory and
    # leaves an epoch at least 16 updates, and 2 at least where BatchNorm takes statistics; if memory runs out all the
    # same, batches are computed in parts, for the same updates.
    batch_size: int | str = MISSING
    # The largest norm of the gradient over all trainable parameters; null: no clipping.
    clip_norm: float | None = MISSING
    # The metric on the validation set that decides which checkpoint is the best: accuracy, macro_f1, balanced_accuracy,
    # cohen_kappa, matthews, auroc, average_precision, top_5 or log_loss; of two classes also sensitivity_at_90,
    # sensitivity_at_95 and sensitivity_at_99, at that specificity in %, the second class being the positive one.
    metric: str = MISSING
    # The number of batches whose gradients are averaged for one update, as if they were one batch. BatchNorm still
    # normalises each batch by itself.
    accumulate: int = MISSING
    # A phase ends early after this many epochs without a better metric; null: as stage.phases says, which is never but
    # for the last block of stage=auto. The schedule is always the one for all epochs.
    patience: int | None = MISSING
    # Save also within an epoch, when this many minutes have passed since the last save; null: only after each epoch.
    save_every_minutes: float | None = MISSING
    # Keep last.pt and previous.pt, from which a run can be resumed, when it has finished.
    keep_last: bool = False
    # How often per phase an epoch whose training or validation loss is not finite is repeated, from the weights before
    # it and with half the learning rates, before the run fails.
    nan_retries: int = MISSING
    # The decay of the exponential moving average of the weights, such as 0.999; the averaged weights are evaluated and
    # saved. null: no averaging.
    ema: float | None = MISSING
    # The strength of the penalty that pulls trainable backbone weights towards their values at the start of the run; it
    # replaces their weight decay, which pulls towards 0 (L2-SP, Li et al., 2018). The reported loss does not include
    # it. null: no penalty.
    l2_sp: float | None = MISSING
    # Weights of the fine-tuned backbone to try in its average with the backbone at the start of the run. Validation
    # chooses among them and 1, the fine-tuned backbone alone (WiSE-FT, Wortsman et al., 2022). []: no averaging.
    wise_ft: list[float] = MISSING
    # Fit a temperature to the validation images when training is done, so that the probabilities of predict, evaluate
    # and export mean what they say (Guo et al., 2017). Losses of the run itself are those of the network as trained.
    calibrate: bool = MISSING
    # The run ends within so many minutes, from the start of its process to its end; the phases are planned by measured
    # times, with recipe.time. null: no limit, and nothing that changes results follows a clock.
    max_minutes: float | None = None

    @property
    def images_per_step(self) -> int:
        """The batch size, when ``auto`` has been replaced by a number."""
        assert isinstance(self.batch_size, int), "auto is replaced before any batch is loaded"
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
        minutes = self.max_minutes
        check(minutes is None or minutes > 0, "train.max_minutes", minutes, "above 0, or null for no limit")
        check(self.l2_sp is None or self.l2_sp > 0, "train.l2_sp", self.l2_sp, "above 0, or null")
        check(
            all(0 <= alpha < 1 for alpha in self.wise_ft),
            "train.wise_ft",
            self.wise_ft,
            "numbers, each at least 0 and below 1",
        )
