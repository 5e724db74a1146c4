"""Datasets of torchvision as samples, with their published splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torchvision.datasets

from ftexp.config import TorchvisionDataConfig
from ftexp.data.samples import Sample
from ftexp.errors import DataError, nearest

# Name -> split -> the argument with which torchvision loads it. Without "test", the test split is taken out of train.
_TRAIN_TEST_FLAG: dict[str, dict[str, object]] = {"train": {"train": True}, "test": {"train": False}}
_TRAIN_TEST: dict[str, dict[str, object]] = {"train": {"split": "train"}, "test": {"split": "test"}}
_TRAINVAL_TEST: dict[str, dict[str, object]] = {"train": {"split": "trainval"}, "test": {"split": "test"}}
_TRAIN_VAL: dict[str, dict[str, object]] = {"train": {"split": "train"}, "val": {"split": "val"}}
_THREE: dict[str, dict[str, object]] = {split: {"split": split} for split in ("train", "val", "test")}
PUBLISHED_SPLITS: dict[str, dict[str, dict[str, object]]] = {
    "CIFAR10": _TRAIN_TEST_FLAG,
    "CIFAR100": _TRAIN_TEST_FLAG,
    "MNIST": _TRAIN_TEST_FLAG,
    "FashionMNIST": _TRAIN_TEST_FLAG,
    "KMNIST": _TRAIN_TEST_FLAG,
    "SVHN": _TRAIN_TEST,
    "STL10": _TRAIN_TEST,
    "Food101": _TRAIN_TEST,
    "StanfordCars": _TRAIN_TEST,
    "OxfordIIITPet": _TRAINVAL_TEST,
    "Flowers102": _THREE,
    "DTD": _THREE,
    "FGVCAircraft": _THREE,
    "Imagenette": _TRAIN_VAL,
}


def read_torchvision(config: TorchvisionDataConfig) -> list[Sample]:
    """List the samples of all published splits; missing files are downloaded first if ``data.download`` is true.

    Raises:
        DataError: for a dataset that is not supported, and when the files are missing and cannot be downloaded.
    """
    if config.name not in PUBLISHED_SPLITS:
        offered = ", ".join(PUBLISHED_SPLITS)
        raise DataError(
            f"data.name={config.name} is not supported.{nearest(config.name, PUBLISHED_SPLITS)} Allowed are {offered}."
        )
    samples: list[Sample] = []
    for split, arguments in PUBLISHED_SPLITS[config.name].items():
        samples += _read_split(_build(config, arguments), config.name, split)
    return samples


def _build(config: TorchvisionDataConfig, arguments: dict[str, object]) -> Any:
    kind = getattr(torchvision.datasets, config.name)
    try:
        return kind(config.root, download=config.download, **arguments)
    except (RuntimeError, OSError) as error:  # torchvision's "not found or corrupted", and what urllib raises
        way_out = "Check the network," if config.download else "Set data.download=true,"
        raise DataError(
            f"{config.name} cannot be loaded from data.root={config.root}: {error}."
            f" {way_out} or put the files there as torchvision.datasets.{config.name} expects them."
        ) from error


def _read_split(dataset: Any, name: str, split: str) -> Iterator[Sample]:
    classes: Sequence[str | tuple[str, ...]] | None = getattr(dataset, "classes", None)
    images, numbers = _images_and_labels(dataset)
    for index, (image, number) in enumerate(zip(images, numbers, strict=True)):
        label = str(number) if classes is None else _class_name(classes[number])
        if isinstance(image, np.ndarray):
            yield Sample(f"{name}/{split}/{index:06d}", label, split, pixels=_height_width_rgb(image))
        else:
            yield Sample(str(image), label, split)


def _class_name(given: str | tuple[str, ...]) -> str:
    """The name of a class; Imagenette has several for each."""
    return given[0] if isinstance(given, tuple) else str(given)


def _images_and_labels(dataset: Any) -> tuple[Sequence[npt.NDArray[np.uint8] | str | Path], list[int]]:
    """Arrays or paths, and class numbers. torchvision has other attributes in each dataset, private ones for files."""
    if hasattr(dataset, "data"):
        numbers = dataset.targets if hasattr(dataset, "targets") else dataset.labels
        return np.asarray(dataset.data), np.asarray(numbers).tolist()  # type: ignore[return-value]
    if hasattr(dataset, "_samples"):
        return [path for path, _ in dataset._samples], [number for _, number in dataset._samples]
    images = dataset._images if hasattr(dataset, "_images") else dataset._image_files
    return images, dataset._labels


def _height_width_rgb(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if image.ndim == 2:
        return np.broadcast_to(image[..., np.newaxis], (*image.shape, 3))
    return image if image.shape[-1] == 3 else image.transpose(1, 2, 0)
