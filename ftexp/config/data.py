"""The schema of ``data``, ``audit`` and ``test``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING

from ftexp.config.check import check, refuse_empty
from ftexp.errors import ConfigError


@dataclass(slots=True)
class DataConfig:
    """Where the samples come from and how they are split into train, val and test."""

    # What lists the samples: the name of the option.
    source: Literal["digits", "imagefolder", "manifest", "torchvision", "huggingface", "webdataset"] = MISSING
    # auto: use the splits of the source if it has any, else stratified. given: require the splits of the source.
    # stratified: ignore them and draw new ones. group and time keep the source's test split, if it has one, and split
    # the rest: group keeps every group in one split; time trains on the past and tests on the future.
    split: Literal["auto", "stratified", "group", "time", "given"] = "auto"
    # Fractions of all samples. A split that the source lacks is taken out of train, by the same fractions, and by group
    # if the samples have groups.
    val_fraction: float = 0.2
    test_fraction: float = 0.2
    # The seed of the split alone; runtime.seed is for everything else, so that many runs share one split.
    seed: int = 0
    # With split=time: the least time between two splits; samples in the gap are left out. The unit is days for dates,
    # and that of the column for numbers.
    time_gap: float = 0.0
    # A table path,group, as audit.write_groups writes it: the images of a group stay in one split; null: none.
    groups: str | None = None
    # True: find near duplicates before splitting, and keep them together in one split, like a group.
    tie_duplicates: bool = False
    # What to do with files that cannot be decoded or exceed a limit: error stops before training; skip leaves them out
    # and lists them in bad_images.csv.
    on_bad_image: Literal["error", "skip"] = "error"
    # The limits: the size of a file in MiB, and the pixels of its image in millions.
    max_file_mib: float = 64.0
    max_megapixels: float = 89.0
    # The value that means white in files of more than 8 bits per channel, such as 4095 for a camera with 12 bits; null:
    # 65535 for integers, 1 for floats.
    white_level: float | None = None
    # shuffle: every image once per epoch. balanced: every class is drawn equally often in an epoch.
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    # The side of the network's input in pixels that suits these images; null: that of the weights. model.image_size
    # takes precedence.
    image_size: int | None = None

    def __post_init__(self) -> None:
        check(0 < self.val_fraction < 1, "data.val_fraction", self.val_fraction, "between 0 and 1")
        check(0 < self.test_fraction < 1, "data.test_fraction", self.test_fraction, "between 0 and 1")
        held_out = self.val_fraction + self.test_fraction
        check(
            held_out < 1, "data.val_fraction + data.test_fraction", f"{held_out:g}", "below 1, to leave images to train"
        )
        check(self.seed >= 0, "data.seed", self.seed, "0 or above")
        check(self.time_gap >= 0, "data.time_gap", self.time_gap, "0 or above")
        if self.time_gap > 0 and self.split != "time":
            raise ConfigError(
                f"data.time_gap={self.time_gap:g} has no effect with data.split={self.split}; set data.split=time."
            )
        if self.tie_duplicates and self.split in ("time", "given"):
            raise ConfigError(
                f"data.tie_duplicates=true is not possible with data.split={self.split}, which fixes the split of each"
                " sample; use stratified or group."
            )
        refuse_empty("data.groups", self.groups)
        if self.groups is not None and self.split == "time":
            raise ConfigError("data.groups splits by group, and data.split=time by time; leave one of them out.")
        check(self.max_file_mib > 0, "data.max_file_mib", self.max_file_mib, "above 0")
        check(self.max_megapixels > 0, "data.max_megapixels", self.max_megapixels, "above 0")
        check(self.white_level is None or self.white_level > 0, "data.white_level", self.white_level, "null or above 0")
        check(self.image_size is None or self.image_size >= 8, "data.image_size", self.image_size, "null or >= 8")


@dataclass(slots=True)
class ImageFolderConfig(DataConfig):
    """One folder per class, directly under ``root`` or under ``root/train``, ``root/val`` and ``root/test``."""

    # The folder of the images. Links in it are followed.
    root: str = MISSING
    # auto: folders that have the usual names of splits are splits. classes: every folder under root is a class.
    layout: Literal["auto", "classes"] = "auto"

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        refuse_empty("data.root", self.root)


@dataclass(slots=True)
class ManifestConfig(DataConfig):
    """A table, in a text file or Parquet, with one row per image; or several, by a glob or braces."""

    # The table: CSV or TSV, whatever its delimiter, or Parquet, of paths or with the images in it; of Parquet also a
    # URL. A glob or braces name several.
    file: str = MISSING
    # The folder, or URL, that relative paths start from and that must contain every image; null: the folder of the
    # table. Images inside a Parquet file with large row groups are written to it once.
    root: str | None = None
    # The columns with the path of an image, or the image itself, and with its label.
    path_column: str = "path"
    label_column: str = "label"
    # The columns with the group (a person, patient or slide), with the time (ISO 8601 or a number), and with the split
    # (train, val or test).
    group_column: str | None = None
    time_column: str | None = None
    split_column: str | None = None

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        refuse_empty("data.file", self.file)
        refuse_empty("data.root", self.root)
        for split, column in (("group", "group_column"), ("time", "time_column"), ("given", "split_column")):
            if self.split == split and getattr(self, column) is None:
                raise ConfigError(
                    f"data.split={split} needs data.{column}=NAME, the column of the table that holds it."
                )


@dataclass(slots=True)
class TorchvisionDataConfig(DataConfig):
    """A dataset of torchvision, with its published splits."""

    # A class of torchvision.datasets, such as CIFAR10, Flowers102 or OxfordIIITPet.
    name: str = MISSING
    # The folder that has its files, or that they are downloaded to.
    root: str = MISSING
    # Whether files that are missing there are downloaded.
    download: bool = True

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        refuse_empty("data.root", self.root)


@dataclass(slots=True)
class HuggingFaceDataConfig(DataConfig):
    """A dataset of the Hugging Face hub, or one saved to a folder; needs the extra ``huggingface``."""

    # Its name on the hub, or a folder written by ``save_to_disk``.
    name: str = MISSING
    # The folder that its images are written to as files, once.
    root: str = MISSING
    # The columns with the image and with its label.
    image_column: str = "image"
    label_column: str = "label"

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        refuse_empty("data.name", self.name)
        refuse_empty("data.root", self.root)


@dataclass(slots=True)
class WebDatasetConfig(DataConfig):
    """Tars in which an image and its label share a name: ``0042.jpg`` and ``0042.cls`` or ``0042.json``.

    Shards with the usual names of splits (``train-000.tar``) or in such folders have these splits.
    """

    # Such as shards/train-{000..010}.tar, shards/*.tar, a folder, or a URL like s3://bucket/{train,val}-*.tar.
    shards: str = MISSING
    # The extension of the member that is the image, such as left.jpg; null: the only one that is an image.
    image_member: str | None = None
    # The key of the .json that has the label; null: the label is the .cls.
    label_key: str | None = None
    # The keys of the .json with the group and with the time.
    group_key: str | None = None
    time_key: str | None = None
    # A text file with the name of a class in each line: the names of class numbers, from 0 on; null: labels are names.
    classes: str | None = None
    # The folder that keeps the list of each shard, so that it is read once; null: it is not kept.
    index: str | None = ".ftexp/shards"

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        for key in ("shards", "classes", "index"):
            refuse_empty(f"data.{key}", getattr(self, key))
        for split, key in (("group", "group_key"), ("time", "time_key")):
            if self.split == split and getattr(self, key) is None:
                raise ConfigError(f"data.split={split} needs data.{key}=NAME, the key of the .json that holds it.")


@dataclass(slots=True)
class AuditConfig:
    """The search for leaks between the splits, before the first epoch."""

    # fail: a leak between splits stops the run. warn: a leak is a warning, and the run trains. off: no search.
    # Conflicting labels and shortcuts to the label are always warnings.
    on_leak: Literal["fail", "warn", "off"] = MISSING
    # True: find near duplicates also by the features of a pretrained network. False: by perceptual hashes alone, which
    # is faster. Near duplicates are looked for among images of 24 px a side and more, equal ones at any size.
    features: bool = MISSING
    # True: also find edited copies (turned, framed, written on, in other colours) and photographs of one scene: images
    # of 64 px a side and more are aligned with those that are nearest by features. It takes about 5 ms of a core for
    # each image and 1 ms for each of its some five pairs, once. null: with audit.features=true.
    geometry: bool | None = MISSING
    # True: a run tells how many labels look wrong, judged as ftexp.labels does it, before training. It needs the
    # search for leaks, one process, and at most 5,000 images for training and validation; trials of a sweep do not.
    # False: no run does.
    labels: bool = MISSING
    # Photographs of one scene or object in two splits, found with audit.geometry. warn: a warning. fail: they
    # stop the run as leaks do. ignore: they are not listed.
    on_scene: Literal["warn", "fail", "ignore"] = MISSING
    # The database that keeps the fingerprint of each image for later runs, by its content; null: nothing is kept. While
    # an audit runs, fingerprints that take more than 128 MiB, about 20,000 images, are in a temporary file of 6 kB an
    # image; TMPDIR chooses its folder.
    cache: str | None = MISSING
    # The table, path,group, of images that show one picture or scene, for data.groups; null: it is not written.
    write_groups: str | None = None

    def __post_init__(self) -> None:
        refuse_empty("audit.write_groups", self.write_groups)
        check(
            not self.geometry or self.features,
            "audit.geometry",
            self.geometry,
            "null or false with audit.features=false: the images to align are found by features",
        )

    @property
    def aligns(self) -> bool:
        """Whether images are aligned to find edited copies and scenes."""
        return self.features if self.geometry is None else self.geometry


@dataclass(slots=True)
class TestConfig:
    """The test split, opened once at the end of a run."""

    # How often one test split may be opened, in total over all runs that share a tracking store; null: no limit.
    max_uses: int | None = MISSING

    def __post_init__(self) -> None:
        check(self.max_uses is None or self.max_uses >= 1, "test.max_uses", self.max_uses, "at least 1, or null")
