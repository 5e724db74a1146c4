"""Images that are parts of files, by their paths, such as those in ``splits.csv``: ``shards/000.tar/0042.jpg``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ftexp.data.places import Place
from ftexp.data.remote import is_url, reason_of
from ftexp.data.sources.folders import has_image_suffix
from ftexp.errors import DataError, shorten

_WITH_PARTS = r".+\.(?:tar|parquet)"
_FILE = re.compile(_WITH_PARTS, re.IGNORECASE)
_PART = re.compile(f"({_WITH_PARTS})/([^/].*)", re.IGNORECASE)


class Parts:
    """Lists each file once, when it or the first of its parts is asked for."""

    def __init__(self) -> None:
        # File -> its parts by their names, or the reason why they cannot be listed.
        self._of: dict[str, Mapping[str, Place] | str] = {}

    def find(self, where: str, path: str) -> Place | None:
        """The place of an image in a tar or a Parquet file; None for the path of a file of its own.

        Args:
            where: the file and line that names it, for messages.
            path: of this machine, or a URL.

        Raises:
            DataError: when the file cannot be read or has no such part.
        """
        found = _PART.fullmatch(path)
        if found is None or not _is_there(found[1]):
            return None
        file, name = found.groups()
        parts = self._list(file)
        if name not in parts:
            raise DataError(f"{where}: {file} has no image {name}.")
        return parts[name]

    def images_in(self, path: str) -> list[tuple[str, Place]] | None:
        """The paths and places of all images in a tar or a Parquet file; None for another file.

        Args:
            path: of this machine, or a URL.

        Raises:
            DataError: when the file cannot be read or has no image.
        """
        if not (_FILE.fullmatch(path) and _is_there(path)):
            return None
        parts = self._list(path)
        if path.lower().endswith(".tar"):
            from ftexp.data.sources.shard_rows import is_hidden

            parts = {name: at for name, at in parts.items() if has_image_suffix(name) and not is_hidden(name)}
        if not parts:
            raise DataError(f"{path} has no images that can be read where they are.")
        return [(f"{path}/{name}", place) for name, place in parts.items()]

    def _list(self, file: str) -> Mapping[str, Place]:
        if file not in self._of:
            try:
                self._of[file] = _parts_of(file)
            except DataError as error:  # remembered, because a server that does not answer takes long
                self._of[file] = str(error)
        parts = self._of[file]
        if isinstance(parts, str):
            raise DataError(parts)
        return parts


def _is_there(file: str) -> bool:
    return is_url(file) or os.path.isfile(file)


def _parts_of(file: str) -> Mapping[str, Place]:
    if file.lower().endswith(".tar"):
        from ftexp.data.sources.shard_index import members_of

        return members_of(file)
    import pyarrow

    from ftexp.data.parquet_cells import opened_parquet
    from ftexp.data.sources.parquet_table import image_cells, image_columns

    try:
        with opened_parquet(file) as parquet:
            columns = image_columns(parquet.schema_arrow)
            cells = image_cells(file, parquet, columns[0]) if len(columns) == 1 else None
    except pyarrow.ArrowException as error:
        raise DataError(f"{file} cannot be read as Parquet: {shorten(str(error)).rstrip('.')}.") from error
    except OSError as error:
        raise DataError(f"{file}: {reason_of(error)}.") from error
    return {f"{number:07d}": cell for number, cell in enumerate(cells or (), start=1)}
