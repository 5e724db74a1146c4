"""Finds images that are parts of files by their paths, such as those in ``splits.csv``: ``shards/000.tar/0042.jpg``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ftexp.data.places import Place
from ftexp.data.remote import is_url, reason_of
from ftexp.errors import DataError

_PART = re.compile(r"(.+\.(?:tar|parquet))/([^/].*)", re.IGNORECASE)


class Parts:
    """Lists each file once, when the first of its parts is asked for."""

    def __init__(self) -> None:
        self._of: dict[str, Mapping[str, Place]] = {}

    def find(self, where: str, path: str) -> Place | None:
        """The place of an image in a tar or a Parquet file; None for the path of a file of its own.

        Args:
            where: the file and line that names it, for messages.
            path: of this machine, or a URL.

        Raises:
            DataError: when the file cannot be read or has no such part.
        """
        found = _PART.fullmatch(path)
        if found is None or not (is_url(found[1]) or os.path.isfile(found[1])):
            return None
        file, name = found.groups()
        if file not in self._of:
            self._of[file] = _parts_of(file)
        if name not in self._of[file]:
            raise DataError(f"{where}: {file} has no image {name}.")
        return self._of[file][name]


def _parts_of(file: str) -> Mapping[str, Place]:
    if file.lower().endswith(".tar"):
        from ftexp.data.sources.shard_index import members_of

        return members_of(file)
    from ftexp.data.parquet_cells import opened_parquet
    from ftexp.data.sources.parquet_table import image_cells, image_columns

    try:
        with opened_parquet(file) as parquet:
            columns = image_columns(parquet.schema_arrow)
            cells = image_cells(file, parquet, columns[0]) if len(columns) == 1 else None
    except OSError as error:
        raise DataError(f"{file}: {reason_of(error)}.") from error
    return {f"{number:07d}": cell for number, cell in enumerate(cells or (), start=1)}
