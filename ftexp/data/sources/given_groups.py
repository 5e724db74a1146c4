"""Reads ``data.groups``: the groups of images, as ``audit.write_groups`` writes them."""

from __future__ import annotations

import logging
from pathlib import Path

from ftexp.data.samples import SampleTable
from ftexp.data.sources.text_table import text_rows
from ftexp.errors import DataError, listed

log = logging.getLogger(__name__)


def with_groups(samples: SampleTable, file: Path) -> SampleTable:
    """The samples with the groups of a table ``path,group``; an image that it does not list is a group of its own.

    Args:
        samples: all samples, as the source lists them.
        file: the table; its paths are those of ``splits.csv``.

    Raises:
        DataError: when samples have groups already, there is no such table, it names an image twice, or none of its
            images is in the data.
    """
    if any(sample.group is not None for sample in samples):
        raise DataError(f"data.groups={file}, but the data has groups of its own. Give one of them.")
    if not file.exists():
        raise DataError(f"data.groups={file}: there is no such file. audit.write_groups writes one.")
    group_of: dict[str, str] = {}
    for where, row in text_rows(file, ("path", "group")):
        if group_of.setdefault(row["path"], row["group"]) != row["group"]:
            raise DataError(f"{where}: {row['path']} has two groups, {group_of[row['path']]} and {row['group']}.")
    unknown = sorted(group_of.keys() - {sample.path for sample in samples})
    if unknown and len(unknown) == len(group_of):
        raise DataError(
            f"data.groups={file}: none of its {len(unknown)} paths is an image of the data, for example {unknown[0]};"
            f" the data has {samples[0].path}. Write it with audit.write_groups from the same folder."
        )
    if unknown:
        log.warning("data.groups=%s: %d of its paths are not in the data: %s.", file, len(unknown), listed(unknown))
    return samples.replaced(group=[group_of.get(path, path) for path in samples.values("path")])
