"""A file or folder that cannot be used, as one message: which it is, why, and the setting that takes another place."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ftexp.config import Config
from ftexp.config.uri import sqlite_file
from ftexp.errors import DivergedError, UserError

# What the user can put right. Of other errors of the system, the traceback tells more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BLOCKED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT)
_BROKEN = (errno.EIO, errno.ESTALE, errno.ENAMETOOLONG, errno.ENODEV, errno.ENXIO, errno.ELOOP, errno.ENOLCK)
RUN_FOLDER, SWEEP_FOLDER = "hydra.run.dir", "hydra.sweep.dir"
# Below this, a place counts as full.
_LITTLE_BYTES = 2**20

# Setting -> the file or folder that it names.
Places = Mapping[str, Path]


def places_of(config: Config, folder: Path, *, in_sweep: bool) -> Places:
    """All that a run writes to."""
    database = sqlite_file(config.tracking.uri or "")
    places = {
        SWEEP_FOLDER if in_sweep else RUN_FOLDER: folder,
        "runtime.cache_folder": Path(config.runtime.cache_folder),
        "audit.cache": Path(config.audit.cache) if config.audit.cache else None,
        "tracking.uri": database.parent if database else None,
        "data.root": Path(root) if (root := getattr(config.data, "root", None)) else None,
    }
    return {setting: place.absolute() for setting, place in places.items() if place is not None}


def explain_disk(error: BaseException, places: Places) -> str | None:
    """A message for an error, or a cause of it, that the system raised about a file; None for any other."""
    if isinstance(error, (UserError, DivergedError)):
        return None
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__
    if found is None or found.errno not in (*_FULL, *_BLOCKED, *_BROKEN):
        return None
    reason = os.strerror(found.errno)
    if found.filename is None:
        return f"A file cannot be written: {reason}. {_rooms(places)}" if found.errno in _FULL else None
    file = os.fsdecode(found.filename) if isinstance(found.filename, (str, bytes)) else str(found.filename)
    setting = _setting_of(Path(file), places)
    move = f" {setting} takes another place." if setting else ""
    return f"{file} cannot be used: {reason}.{move}{_resume(places, found.errno)}"


def _setting_of(file: Path, places: Places) -> str | None:
    """The setting that names the innermost place around a file; of one place alone, where there is only one."""
    around = {s: place for s, place in places.items() if file.absolute().is_relative_to(place) or file == place}
    if around:
        return max(around, key=lambda setting: len(around[setting].parts))
    return next(iter(places)) if len(places) == 1 else None


def _rooms(places: Places) -> str:
    """Which places are full, or how much room there is in each."""
    free = {setting: _free_bytes(place) for setting, place in places.items()}
    full = [setting for setting, room in free.items() if room is not None and room < _LITTLE_BYTES]
    shown = [
        f"{setting}={places[setting]} ({room / 2**20:.0f} MiB free)"
        for setting, room in free.items()
        if room is not None and (setting in full or not full)
    ]
    advice = f"Make room, or take another place: {', '.join(shown)}." if shown else "Make room."
    return advice + _resume(places, errno.ENOSPC)


def _free_bytes(place: Path) -> int | None:
    for folder in (place, *place.parents):
        if folder.is_dir():
            try:
                return shutil.disk_usage(folder).free
            except OSError:
                return None
    return None


def _resume(places: Places, number: int | None) -> str:
    """How a run goes on that had been saved before its disk was full."""
    run = places.get(RUN_FOLDER)
    saved = run is not None and (run / "checkpoints" / "last.pt").exists()
    return " Then go on with resume=FOLDER OF THE RUN." if saved and number in _FULL else ""
