"""Samples in WebDataset shards: tars in which an image and its label share a name (``0042.jpg``, ``0042.cls``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ftexp.config import WebDatasetConfig
from ftexp.data.places import Part
from ftexp.data.remote import is_url
from ftexp.data.samples import Sample, SampleTable, is_one_line
from ftexp.data.sources.several_labels import refuse_several_labels
from ftexp.data.sources.shard_index import Shard, read_shard
from ftexp.data.sources.shard_names import find_shards, split_names
from ftexp.data.sources.shard_rows import Wanted
from ftexp.errors import DataError

# Shards at URLs that are listed at the same time; of those of this machine, one is.
AT_A_TIME = 8


def read_webdataset(config: WebDatasetConfig) -> SampleTable:
    """List the images of all shards; only headers and labels are read, and those of a known shard not again.

    Raises:
        DataError: naming the shard, when it is missing, damaged or not complete, or has an image without a label.
    """
    paths = find_shards("data.shards", config.shards)
    names = _class_names(config.classes)
    wanted = Wanted(config.image_member, config.label_key, config.group_key, config.time_key)
    folder = Path(config.index).expanduser() if config.index is not None else None
    with ThreadPoolExecutor(AT_A_TIME if is_url(paths[0]) else 1) as pool:
        shards = pool.map(partial(read_shard, wanted=wanted, folder=folder), paths)
        samples = SampleTable.joined(
            [
                SampleTable.of(_samples(shard, split, names))
                for shard, split in zip(shards, split_names(paths), strict=True)
            ]
        )
    if not samples:
        raise DataError(f"data.shards={config.shards}: there is no image in its {len(paths)} shards.")
    refuse_several_labels(f"data.shards={config.shards}", set(samples.values("label")))
    return samples


def _samples(shard: Shard, split: str | None, names: Mapping[str, str] | None) -> Iterator[Sample]:
    rows = shard.rows
    columns = [rows.column(name).to_pylist() for name in ("name", "offset", "size")]
    columns += [rows.column(name).to_pylist() for name in ("label", "group", "time")]
    for name, offset, size, label, group, time in zip(*columns, strict=True):
        path = f"{shard.container.path}/{name}"
        if names is not None and label not in names:
            raise DataError(f"{path}: its class {label} is not among the {len(names)} of data.classes.")
        place = Part(shard.container, offset, size)
        yield Sample(path, label if names is None else names[label], split, group, time, place=place)


def _class_names(file: str | None) -> dict[str, str] | None:
    """Class number, as text, -> class name: the line with this number, from 0 on."""
    if file is None:
        return None
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"data.classes={file} cannot be read: {error}.") from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names or not all(name and is_one_line(name) for name in names) or len(set(names)) < len(names):
        raise DataError(f"data.classes={file} must have one class in each line, and no class twice.")
    return {str(number): name for number, name in enumerate(names)}
