"""Explains errors of the file system in one message: the file, the reason, and the setting that names its folder."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ftexp.config import Config
from ftexp.config.uri import sqlite_file
from ftexp.errors import DivergedError, UserError

# Errors that the user can correct. For other errors of the system, the traceback is more useful.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BLOCKED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT)
_BROKEN = (errno.EIO, errno.ESTALE, errno.ENAMETOOLONG, errno.ENODEV, errno.ENXIO, errno.ELOOP, errno.ENOLCK)
RUN_FOLDER, SWEEP_FOLDER = "hydra.run.dir", "hydra.sweep.dir"
# A disk with less free space than this counts as full.
_LITTLE_BYTES = 2**20

# Setting -> the file or folder that it names; a run writes to all of them.
WrittenPaths = Mapping[str, Path]


def written_paths(config: Config, folder: Path, *, in_sweep: bool) -> WrittenPaths:
    """The files and folders that a run writes to, by the setting that names each."""
    database = sqlite_file(config.tracking.uri or "")
    paths = {
        SWEEP_FOLDER if in_sweep else RUN_FOLDER: folder,
        "runtime.cache_folder": Path(config.runtime.cache_folder),
        "audit.cache": Path(config.audit.cache) if config.audit.cache else None,
        "tracking.uri": database.parent if database else None,
        "data.root": Path(root) if (root := getattr(config.data, "root", None)) and "://" not in root else None,
        "data.index": Path(index) if (index := getattr(config.data, "index", None)) else None,
    }
    return {setting: path.absolute() for setting, path in paths.items() if path is not None}


def explain_disk(error: BaseException, paths: WrittenPaths) -> str | None:
    """The message for an error that the file system raised, or that it caused; None for any other error."""
    if isinstance(error, (UserError, DivergedError)):
        return None
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__
    if found is None or found.errno not in (*_FULL, *_BLOCKED, *_BROKEN):
        return None
    reason = os.strerror(found.errno)
    name = found.filename
    file = os.fsdecode(name) if isinstance(name, (str, bytes)) else str(name or "")
    if found.errno in _FULL:
        return f"{file or 'A file'} cannot be written: {reason}. {_free_space(paths)}"
    if not file:
        return None
    setting = _setting_of(Path(file), paths)
    move = f" Set another location with {setting}." if setting else ""
    return f"{file} cannot be used: {reason}.{move}"


def _setting_of(file: Path, paths: WrittenPaths) -> str | None:
    """The setting that names the innermost folder around a file; the only setting, if there is only one."""
    around = {s: path for s, path in paths.items() if file.absolute().is_relative_to(path) or file == path}
    if around:
        return max(around, key=lambda setting: len(around[setting].parts))
    return next(iter(paths)) if len(paths) == 1 else None


def _free_space(paths: WrittenPaths) -> str:
    """Advice with the paths on full disks, or with the free space at every path."""
    free = {setting: _free_bytes(path) for setting, path in paths.items()}
    full = [setting for setting, space in free.items() if space is not None and space < _LITTLE_BYTES]
    shown = [
        f"{setting}={paths[setting]} ({space / 2**20:.0f} MiB free)"
        for setting, space in free.items()
        if space is not None and (setting in full or not full)
    ]
    advice = f"Free some space, or set another location: {', '.join(shown)}." if shown else "Free some space."
    return advice + _resume(paths)


def _free_bytes(path: Path) -> int | None:
    for folder in (path, *path.parents):
        if folder.is_dir():
            try:
                return shutil.disk_usage(folder).free
            except OSError:
                return None
    return None


def _resume(paths: WrittenPaths) -> str:
    """How to resume a run that was saved before its disk was full."""
    run = paths.get(RUN_FOLDER)
    saved = run is not None and (run / "checkpoints" / "last.pt").exists()
    return " Then resume with resume=FOLDER OF THE RUN." if saved else ""
