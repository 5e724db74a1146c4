"""The schema of ``data``, ``audit`` and ``test``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING

from ftexp.config.check import check, refuse_empty
from ftexp.errors import ConfigError


@dataclass(slots=True)
class DataConfig:
    """Where the samples come from and how they are cut into train, val and test."""

    source: Literal["digits", "imagefolder", "manifest", "torchvision", "huggingface"] = MISSING
    # auto: the splits that the source brings, else stratified. given: insist on those of the source. stratified: cut
    # anew. group, time: keep the source's test split and cut the rest, or cut all; group keeps every group in one
    # split, time trains on the past and tests on the future.
    split: Literal["auto", "stratified", "group", "time", "given"] = "auto"
    # Shares of all samples. A split that the source lacks is cut out of train, by the same shares, and by group where
    # the samples have groups.
    val_fraction: float = 0.2
    test_fraction: float = 0.2
    # Of the split only; runtime.seed is for everything else, so that many runs share one split.
    seed: int = 0
    # split=time: at least this much time between two splits; samples within are left out. In days for dates, in the
    # column's own unit for numbers.
    time_gap: float = 0.0
    # True: near duplicates are found first and stay in one split together, as a group does.
    tie_duplicates: bool = False
    # Files that cannot be decoded or exceed a limit: error stops before training; skip leaves them out, listed.
    on_bad_image: Literal["error", "skip"] = "error"
    max_file_mib: float = 64.0
    max_megapixels: float = 89.0
    # The value that is white in files of more than 8 bits a channel, such as 4095 of a camera with 12 bits; null: 65535
    # of integers, 1 of floats.
    white_level: float | None = None
    # balanced: in an epoch every class is drawn equally often.
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    # Side of the input in pixels that suits these images; null: the weights' own. model.image_size wins.
    image_size: int | None = None

    def __post_init__(self) -> None:
        check(0 < self.val_fraction < 1, "data.val_fraction", self.val_fraction, "between 0 and 1")
        check(0 < self.test_fraction < 1, "data.test_fraction", self.test_fraction, "between 0 and 1")
        held_out = self.val_fraction + self.test_fraction
        check(
            held_out < 1, "data.val_fraction + data.test_fraction", f"{held_out:g}", "below 1, to leave some for train"
        )
        check(self.seed >= 0, "data.seed", self.seed, "0 or above")
        check(self.time_gap >= 0, "data.time_gap", self.time_gap, "0 or above")
        if self.time_gap > 0 and self.split != "time":
            raise ConfigError(
                f"data.time_gap={self.time_gap:g} has no effect with data.split={self.split}; set it to time."
            )
        if self.tie_duplicates and self.split in ("time", "given"):
            raise ConfigError(
                f"data.tie_duplicates=true cannot hold with data.split={self.split}, which fixes where each sample"
                " goes; use stratified or group."
            )
        check(self.max_file_mib > 0, "data.max_file_mib", self.max_file_mib, "above 0")
        check(self.max_megapixels > 0, "data.max_megapixels", self.max_megapixels, "above 0")
        check(self.white_level is None or self.white_level > 0, "data.white_level", self.white_level, "null or above 0")
        check(self.image_size is None or self.image_size >= 8, "data.image_size", self.image_size, "null or >= 8")


@dataclass(slots=True)
class ImageFolderConfig(DataConfig):
    """One folder per class, directly under ``root`` or under ``root/train``, ``root/val`` and ``root/test``."""

    root: str = MISSING
    # auto: folders with the usual names of splits are splits. classes: every folder under root is a class.
    layout: Literal["auto", "classes"] = "auto"

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        refuse_empty("data.root", self.root)


@dataclass(slots=True)
class ManifestConfig(DataConfig):
    """A table, in a text file or Parquet, with one row per image."""

    file: str = MISSING
    # The folder that relative paths start from and that every path must lie in; null: the table's own folder. Images
    # inside of a Parquet file are written into it, once.
    root: str | None = None
    path_column: str = "path"
    label_column: str = "label"
    # The unit of independence (person, patient, slide); when it was taken (ISO 8601 or a number); train, val or test.
    group_column: str | None = None
    time_column: str | None = None
    split_column: str | None = None

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        refuse_empty("data.file", self.file)
        refuse_empty("data.root", self.root)
        for split, column in (("group", "group_column"), ("time", "time_column"), ("given", "split_column")):
            if self.split == split and getattr(self, column) is None:
                raise ConfigError(f"data.split={split} needs data.{column}=NAME, the table's column that holds it.")


@dataclass(slots=True)
class TorchvisionDataConfig(DataConfig):
    """A data set of torchvision, with its published splits."""

    # A class of torchvision.datasets, such as CIFAR10, Flowers102 or OxfordIIITPet.
    name: str = MISSING
    # Where its files are, or are downloaded to.
    root: str = MISSING
    download: bool = True

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        refuse_empty("data.root", self.root)


@dataclass(slots=True)
class HuggingFaceDataConfig(DataConfig):
    """A data set of the Hugging Face hub, or one saved to a folder; needs the extra ``huggingface``."""

    # Its name on the hub, or a folder written by ``save_to_disk``.
    name: str = MISSING
    # Its images are written here as files, once.
    root: str = MISSING
    image_column: str = "image"
    label_column: str = "label"

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        refuse_empty("data.name", self.name)
        refuse_empty("data.root", self.root)


@dataclass(slots=True)
class AuditConfig:
    """The search for leaks between the splits, before the first epoch."""

    # fail: a leak across splits stops the run. warn: say it and train all the same. off: do not look.
    # Conflicting labels and shortcuts to the label are warnings in any case.
    on_leak: Literal["fail", "warn", "off"] = MISSING
    # False: near duplicates by perceptual hashes alone, without the features of a pretrained network; faster.
    features: bool = MISSING
    # Where what was seen of each image is kept for the next run, by content; null: nowhere.
    cache: str | None = MISSING


@dataclass(slots=True)
class TestConfig:
    """The test split, opened once at the end of a run."""

    # How often one test split may be opened in all, by any run beside the same tracking store; null: as often as asked.
    max_uses: int | None = MISSING

    def __post_init__(self) -> None:
        check(self.max_uses is None or self.max_uses >= 1, "test.max_uses", self.max_uses, "at least 1, or null")
