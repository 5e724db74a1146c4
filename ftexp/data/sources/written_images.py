"""Images that are stored inside tables; they are written to files once and read from there."""

from __future__ import annotations

from pathlib import Path

from ftexp.errors import DataError
from ftexp.files.whole_file import replaced_whole

# Marks the folder, so that it is never read as a class.
MARK = ".written_by_ftexp"


class WrittenImages:
    """A folder of such files. Its name must depend on their content, since existing files are not written again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MARK).touch()
        except OSError as error:
            raise self._cannot_write(error) from error

    def write(self, name: str, content: bytes) -> Path:
        """Write a file unless it exists; other processes may write the same file at the same time."""
        path = self._folder / name
        try:
            if not path.exists() or path.stat().st_size != len(content):
                with replaced_whole(path) as unfinished:
                    unfinished.write_bytes(content)
        except OSError as error:
            raise self._cannot_write(error) from error
        return path

    def _cannot_write(self, error: OSError) -> DataError:
        return DataError(
            f"The images of the dataset cannot be written to {self._folder}: {error.strerror}. Set data.root to a"
            " writable folder with enough space."
        )
