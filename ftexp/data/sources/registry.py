"""Chooses the function that lists the samples, by ``data.source``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ftexp.config import (
    DataConfig,
    HuggingFaceDataConfig,
    ImageFolderConfig,
    ManifestConfig,
    TorchvisionDataConfig,
    WebDatasetConfig,
)
from ftexp.data.samples import Sample, SampleTable
from ftexp.data.sources.class_names import unify_names
from ftexp.data.sources.given_groups import with_groups


def read_samples(config: DataConfig) -> SampleTable:
    """List the samples of the configured source; images in files are not opened yet.

    Raises:
        DataError: when the source is missing, empty or inconsistent.
    """
    samples = unify_names(SampleTable.of(_list_samples(config)))
    if config.groups is not None:
        samples = with_groups(samples, Path(config.groups))
    if config.white_level is None:
        return samples
    return samples.replaced(white_level=[config.white_level] * len(samples))


def _list_samples(config: DataConfig) -> Iterable[Sample]:
    # Each source imports other libraries; only the chosen source is imported.
    match config:
        case ImageFolderConfig():
            from ftexp.data.sources.imagefolder import read_imagefolder

            return read_imagefolder(config)
        case ManifestConfig():
            from ftexp.data.sources.manifest import read_manifest

            return read_manifest(config)
        case TorchvisionDataConfig():
            from ftexp.data.sources.torchvision_sets import read_torchvision

            return read_torchvision(config)
        case HuggingFaceDataConfig():
            from ftexp.data.sources.huggingface import read_huggingface

            return read_huggingface(config)
        case WebDatasetConfig():
            from ftexp.data.sources.webdataset import read_webdataset

            return read_webdataset(config)
        case _:
            from ftexp.data.sources.digits import read_digits

            assert config.source == "digits"
            return read_digits()
