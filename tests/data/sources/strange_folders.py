"""Folders and images as strangers might bring them, drawn from a seed, for the fuzz.

To extend it, write a function that is given a ``Case`` to build in, and list it in ``PARTS``.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ftexp.data.sources.folders import has_image_suffix

T = TypeVar("T")


@dataclass(slots=True)
class Case:
    """What one case builds.

    Attributes:
        root: the dataset.
        outside: a folder beside it, for what links lead to.
        classes: the folders of classes, in which parts may put more.
        bad: images that may not be read.
        forbidden: some file or folder may not be read by another user.
    """

    root: Path
    outside: Path
    rng: np.random.Generator
    classes: list[Path] = field(default_factory=list)
    bad: set[Path] = field(default_factory=set)
    forbidden: bool = False

    def pick(self, *options: T) -> T:
        """One of these, by chance."""
        return options[int(self.rng.integers(len(options)))]

    def folder(self) -> Path:
        """The folder of a class, by chance."""
        return self.classes[int(self.rng.integers(len(self.classes)))]

    def picture(self, path: Path) -> Path:
        """A small good image, its format as its name says, otherwise a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = self.rng.integers(0, 256, (*self.rng.integers(1, 9, 2), 3), np.uint8)
        suffix = path.suffix.lower()
        kind = Image.registered_extensions().get(suffix, "PNG")
        Image.fromarray(pixels).save(path, kind if kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF") else "PNG")
        return path


DEEP = {"F": np.float32, "I": np.int32, "I;16": np.uint16}
# Modes that Pillow writes into these formats.
MODES = [
    *(("png", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(
        ("tiff", mode)
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I", "I;16", "F")
    ),
    *(("jpeg", mode) for mode in ("L", "RGB", "CMYK")),
    *(("webp", mode) for mode in ("RGB", "RGBA")),
    *(("gif", mode) for mode in ("L", "P")),
    *(("bmp", mode) for mode in ("1", "L", "P", "RGB", "RGBA")),
]


def image_modes(case: Case) -> None:
    """Every mode and depth that Pillow writes, with and without an EXIF orientation."""
    for number in case.rng.integers(len(MODES), size=6):
        kind, mode = MODES[int(number)]
        image = in_mode(case, mode)
        exif = Image.Exif()
        exif[0x0112] = int(case.rng.integers(0, 12))
        options = {"exif": exif} if kind in ("png", "jpeg", "webp") and case.rng.random() < 0.5 else {}
        path = case.folder() / f"mode-{case.rng.integers(10**6)}.{kind}"
        image.save(path, **options)
        case.bad.add(path)  # some are refused, such as four channels of data: either is right, if it is said


def in_mode(case: Case, mode: str) -> Image.Image:
    """A random image of some pixels, of 8, 12 or 16 bits in use where the mode has more than 8."""
    shape = tuple(case.rng.integers(1, 40, 2))
    values = case.rng.integers(0, int(case.pick(1, 255, 4095, 65535)) + 1, shape)
    if mode in DEEP:
        return Image.fromarray(values.astype(DEEP[mode]))
    if mode == "LAB":
        return Image.new("LAB", shape, (50, 10, 10))
    gray = Image.fromarray(np.uint8(values % 256))
    return gray.convert("RGB").convert("RGBA").convert("LA") if mode == "LA" else gray.convert("RGB").convert(mode)


def damaged_files(case: Case) -> None:
    """Empty, cut, foreign and multi-page files under the suffix of an image."""
    folder = case.folder()
    whole = io.BytesIO()
    Image.fromarray(case.rng.integers(0, 256, (30, 30, 3), np.uint8)).save(whole, "jpeg")
    contents = {
        "empty.jpg": b"",
        "cut.jpg": whole.getvalue()[: int(case.rng.integers(1, 700))],
        "noise.png": case.rng.bytes(int(case.rng.integers(1, 300))),
        "page.jpeg": b"<!DOCTYPE html><html>404</html>",
        "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "phone.HEIC": b"\0\0\0\x18ftypheic" + case.rng.bytes(50),
        "junk.tif": b"II*\0" + case.rng.bytes(60),
        "junk.webp": b"RIFF\x10\0\0\0WEBP" + case.rng.bytes(20),
    }
    for name in case.rng.choice(sorted(contents), 3, replace=False):
        (folder / name).write_bytes(contents[name])
        case.bad.add(folder / name)


def damaged_exif(case: Case) -> None:
    """Good pictures whose EXIF has tags of unknown types, values outside of the file, or no directory at all."""
    for _ in range(3):
        tag, kind, count, value = (int(case.rng.integers(high)) for high in (2**16, 14, 2**20, 2**32))
        entries = struct.pack("<HHIIHHII", 0x0112, 3, 1, case.rng.integers(1, 9), tag, kind, count, value)
        directory = b"II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", int(case.pick(0, 9, 2**31)))
        exif = b"Exif\0\0" + case.pick(directory, directory[: int(case.rng.integers(40))], case.rng.bytes(30))
        shape = tuple(case.rng.integers(1, 40, 2))
        Image.new("RGB", shape, (9, 200, 9)).save(case.folder() / f"exif-{case.rng.integers(10**6)}.jpg", exif=exif)


def much_beside_the_pixels(case: Case) -> None:
    """Good pictures with megabytes of text, with colour profiles that are none, and with pages or frames."""
    image = case.picture(case.folder() / "first.png")
    with Image.open(image) as first:
        frames = [first.convert("RGB"), Image.new("RGB", first.size, (200, 9, 9))]
    info = PngInfo()
    info.add_text("made by", "x" * 2_000_000, zip=bool(case.rng.random() < 0.5))
    frames[0].save(case.folder() / "text.png", pnginfo=info)
    kind = case.pick("png", "jpg", "tif", "webp")
    frames[0].save(case.folder() / f"profile.{kind}", icc_profile=case.rng.bytes(int(case.rng.integers(1, 100_000))))
    kind = case.pick("gif", "webp", "tif", "png")
    frames[0].save(case.folder() / f"frames.{kind}", save_all=True, append_images=frames[1:])


def copies(case: Case) -> None:
    """One file under several names, by hard links, in one class or in two."""
    image = case.picture(case.folder() / "original.png")
    for number in range(3):
        os.link(image, case.folder() / f"copy-{number}.png")


def odd_names(case: Case) -> None:
    """Suffixes in any case, none, wrong ones; spaces, emoji, both Unicode forms, very long names, no Unicode at all."""
    names = ["A.JPG", "b.JpEg", "c.Tiff", "no_suffix", "wrong.dat", "e.jpg.png", "sp ace.png", "\U0001f600\u200d.png"]
    names += [unicodedata.normalize("NFD", "\u00e9.png"), "\u00e9.png", "\u202fAM.png", "-x.png", "#&;,'\".png"]
    names += ["n" * 250 + ".png", "%s{}.png", "~.png", "\u05d0\u05d1.png", "dots...png", " lead.png", "trail .png"]
    for name in case.rng.choice(names, 4, replace=False):
        case.picture(case.folder() / name)
    if case.rng.random() < 0.1:
        case.picture(case.folder() / str(case.pick("caf\udce9.png", "line\nbreak.png", "esc\x1b[31m.png")))


def other_files(case: Case) -> None:
    """What is no image: notes, clutter, archives, hidden files and folders."""
    for name in ("notes.txt", "Thumbs.db", "a.xml", "pictures.zip", "._x.jpg", ".DS_Store", ".cache/x.png", "empty"):
        if case.rng.random() < 0.5:
            path = case.folder() / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"" if name == "empty" else b"PK\x03\x04 text")
    for name in ("__MACOSX", "@eaDir", ".ipynb_checkpoints"):
        if case.rng.random() < 0.3:
            case.picture(case.root / name / "x.png")
    if case.rng.random() < 0.3:
        case.picture(case.root / "loose.png")


def runs(case: Case) -> None:
    """Folders of earlier runs and of other programs, with pictures in them."""
    marks = ("run.json", "sweep.json", ".hydra/config.yaml", "ftexp.log", "pyvenv.cfg", "hparams.yaml", "x.wandb")
    mark = str(case.pick(*marks))
    folder = case.root / str(case.pick("outputs", "multirun", "elsewhere")) / "2026-11-25" / "18-22-53"
    case.picture(folder / "curves.png")
    (folder / mark).parent.mkdir(exist_ok=True)
    (folder / mark).write_text("{}")


def deep_folders(case: Case) -> None:
    """Images some folders further down."""
    for _ in range(3):
        depth = int(case.rng.integers(1, 6))
        case.picture(case.folder().joinpath(*(f"d{case.rng.integers(3)}" for _ in range(depth)), "deep.png"))


def links(case: Case) -> None:
    """To files and folders, inside and outside, in a circle, to nothing, and one folder under two names."""
    case.picture(case.outside / "store" / "1.png")
    case.picture(case.outside / "store" / "more" / "2.png")
    targets = [case.outside / "store", case.outside / "store" / "1.png", Path("."), Path(".."), case.root, Path("/")]
    targets += [case.folder(), Path("gone"), Path("gone.png"), Path("/dev/null"), case.outside]
    for number in range(int(case.rng.integers(1, 4))):
        target = targets[int(case.rng.integers(len(targets)))]
        folder = case.root if case.rng.random() < 0.15 else case.folder()
        link = folder / f"link{number}{case.pick('', '', '.png')}"
        link.symlink_to(target)
        if link.suffix or target.suffix:
            case.bad.add(link)


def pipes(case: Case) -> None:
    """Pipes and sockets, which must not hang anything."""
    folder = case.folder()
    os.mkfifo(folder / str(case.pick("pipe", "pipe.jpg")))
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(folder)  # the name of a socket may not be long
        one.bind("socket.png")
        os.chdir(here)


def permissions(case: Case) -> None:
    """A file or a folder that may not be read."""
    if case.rng.random() < 0.5:
        path = case.picture(case.folder() / "secret.png")
    else:
        path = case.picture(case.folder() / "locked" / "1.png").parent
    path.chmod(0)
    case.forbidden = True


def empty_folders(case: Case) -> None:
    """A class, a split or an inner folder with nothing in it."""
    (case.root / str(case.pick("val", "empty", "Test"))).mkdir(exist_ok=True)
    (case.folder() / "hollow").mkdir(exist_ok=True)


PARTS: list[Callable[[Case], None]] = [
    image_modes,
    damaged_exif,
    much_beside_the_pixels,
    copies,
    damaged_files,
    odd_names,
    other_files,
    runs,
    deep_folders,
    links,
    pipes,
    permissions,
    empty_folders,
]

CLASS_NAMES = [
    "cat",
    "dog",
    "class 2",
    "10",
    "9",
    "caf\u00e9",
    unicodedata.normalize("NFD", "caf\u00e9"),
    "Cat",
    "train",
]
CLASS_NAMES += ["<b>", "a,b", "a|b", "..x", "\u732b", "dev", "x" * 100, "test data"]
SPLIT_NAMES = [("train", "val", "test"), ("Training", "Testing"), ("TRAIN", "valid", "tests"), ("train", "Train")]
SPLIT_NAMES += [("a_train", "a_test"), ("2020", "2021"), ("val", "test"), ("train", "extra"), ("train2017", "val2017")]


def build(case: Case) -> None:
    """Some classes in a layout, and two or three parts on top."""
    names = [str(name) for name in case.rng.choice(CLASS_NAMES, int(case.rng.integers(2, 5)), replace=False)]
    tops = [case.root]
    if case.rng.random() < 0.5:
        tops = [case.root / name for name in SPLIT_NAMES[int(case.rng.integers(len(SPLIT_NAMES)))]]
    elif case.rng.random() < 0.1:
        tops = [case.root / "wrapper"]
    case.classes = [top / name for top in tops for name in names]
    for folder in case.classes:
        for number in range(int(case.rng.integers(2, 9))):
            case.picture(folder / f"{number}{case.pick('.png', '.jpg', '.bmp', '.webp')}")
    parts = [PARTS[int(i)] for i in case.rng.choice(len(PARTS), int(case.rng.integers(0, 4)), replace=False)]
    for part in sorted(parts, key=lambda part: part is permissions):
        part(case)


def images_on_disk(root: Path) -> Iterator[Path]:
    """Every regular file below a folder that has the suffix of an image, links not followed, hidden ones left out."""
    for parent, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in ("__MACOSX", "@eaDir"))
        for name in sorted(files):
            path = Path(parent, name)
            if has_image_suffix(name) and name[0] != "." and path.is_file():
                yield path
