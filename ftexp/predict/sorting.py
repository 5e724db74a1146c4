"""Images in a folder per class: copies or links of them; the images themselves stay where they are."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ftexp.data.places import Place
from ftexp.errors import ConfigError

# The folder of images whose likeliest class is less probable than the threshold.
UNCERTAIN = "below_threshold"
# Of a name, in bytes, with room for what makes it distinct. File systems take 255.
_LONGEST = 200
# Milliseconds that the next tick of a file system's clock is waited for.
_MOST_TICKS = 20


class Sorter:
    """Copies images into folders named after classes.

    Nothing is overwritten: an image whose name is taken by another gets a name of its own. One that is there already,
    from a call that was broken off, is not copied again.

    Args:
        folder: in which the folders of the classes are made, when their first image comes.
        classes: names of the classes.
        link: make hard links, which need no room on the disk; where the file system has none, copies.
    """

    def __init__(self, folder: Path, classes: Sequence[str], *, link: bool) -> None:
        self._folder = folder
        self._link = link
        # The last is that of None; a class may have its name.
        self._folders = dict(zip([*classes, None], folder_names([*classes, UNCERTAIN]), strict=True))
        self._below = os.path.join(os.path.realpath(folder), "")
        folder.mkdir(parents=True, exist_ok=True)
        self._begun = _next_tick(folder)

    def refuse_inside(self, path: str) -> None:
        """Refuse to sort into a folder whose images are predicted themselves: there would be no end.

        Args:
            path: of a folder to predict, or of an image.

        Raises:
            ConfigError: when the folder lies in it, or the image in the folder.
        """
        real = os.path.join(os.path.realpath(path), "")
        if real.startswith(self._below) or (self._below.startswith(real) and os.path.isdir(path)):
            raise ConfigError(
                f"--sort-into {self._folder}: its images would be predicted, too, because of {path}. Choose a folder "
                "outside of those that are predicted."
            )

    def sort(self, path: str, place: Place, label: str | None) -> Path:
        """Copy or link one image into the folder of its class; without a label, into ``below_threshold``.

        Args:
            path: the path or the unique name of the image; the last part of it is the name of the copy.
            place: where its bytes are.
            label: its class.

        Returns:
            The copy.

        Raises:
            OSError: when it cannot be read or written.
        """
        folder = self._folder / self._folders[label]
        folder.mkdir(parents=True, exist_ok=True)
        stem, suffix = os.path.splitext(os.path.basename(path))
        # The second name follows from the path: so a call that goes on after another finds what that one copied.
        mark = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:8]
        for name in (stem, f"{stem}-{mark}", *(f"{stem}-{mark}-{number}" for number in range(2, 1000))):
            target = folder / f"{name}{suffix}"
            if self._put(place, target):
                return target
        raise FileExistsError(17, "a thousand files of this name", str(target))

    def _put(self, place: Place, target: Path) -> bool:
        """Make the copy; False: there is another file by that name."""
        if os.path.lexists(target):
            return self._was_put(place, target)
        if self._link:
            with suppress(OSError):  # another file system, one that has none, or a part of a file
                place.link_to(str(target))
                return True
        unfinished = target.with_name(f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.tmp")
        try:
            place.copy_to(str(unfinished))
            return _move_to_free(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)

    def _was_put(self, place: Place, target: Path) -> bool:
        """Whether a file is the link or the copy of an image that an earlier call made."""
        with suppress(OSError):
            if target.stat().st_ctime_ns < self._begun:  # else it is of this call: of an image of the same name
                return place.is_copied_in(str(target))
        return False


def _next_tick(folder: Path) -> int:
    """The time in ns by the clock of a file system, later than the times of all files that are there.

    Kernels give files the time of their last tick, some milliseconds ago; a file system with longer steps is not
    waited for.
    """
    times = []
    for _ in range(_MOST_TICKS):
        with tempfile.TemporaryFile(dir=folder) as probe:
            times.append(os.fstat(probe.fileno()).st_ctime_ns)
        if times[-1] > times[0]:
            break
        time.sleep(0.001)
    return times[-1]


def folder_names(names: Sequence[str]) -> list[str]:
    """A name of a folder for each name of a class, all of them distinct, also where case makes no difference."""
    found: list[str] = []
    taken = set[str]()
    for name in names:
        plain = re.sub(r"[/\\\x00-\x1f]", "_", name).encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore")
        plain = plain if plain.strip(". ") else f"_{plain}"
        choices = (plain, *(f"{plain}-{number}" for number in range(2, 2 + len(names))))
        found.append(next(choice for choice in choices if choice.casefold() not in taken))
        taken.add(found[-1].casefold())
    return found


def _move_to_free(unfinished: Path, target: Path) -> bool:
    """Rename a file unless the name is taken, which ``os.rename`` does not ask."""
    try:
        os.link(unfinished, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if target.exists():
            return False
        unfinished.rename(target)
    return True
