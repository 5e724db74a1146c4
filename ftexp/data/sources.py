"""Where samples come from: one function per source, chosen by ``data.source``."""

from __future__ import annotations

from ftexp.config import DataConfig, ImageFolderConfig
from ftexp.data.digits import read_digits
from ftexp.data.imagefolder import read_imagefolder
from ftexp.data.samples import Sample


def read_samples(config: DataConfig) -> list[Sample]:
    """List the samples of the configured source; images in files are not opened yet.

    Raises:
        DataError: when the source is missing, empty or inconsistent.
    """
    if isinstance(config, ImageFolderConfig):
        return read_imagefolder(config.root)
    assert config.source == "digits"
    return read_digits()
