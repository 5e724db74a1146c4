"""Folders of images, ``train/CLASS`` and ``val/CLASS``, which all compared frameworks can read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.model_selection import train_test_split

from ftexp.data.sources.digits import read_digits

HEIGHT = 375
ONE_FOR_VAL = 20  # of so many photographs
DIGITS_FOR_VAL = 0.25


@contextmanager
def folder_or_digits(folder: Path | None) -> Iterator[Path]:
    """The given folder or, within the ``with`` block, a temporary one of handwritten digits."""
    if folder is not None:
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory() as temporary:
        write_digits(Path(temporary) / "digits")
        yield Path(temporary) / "digits"


def write_digits(folder: Path) -> None:
    """Write scikit-learn's handwritten digits as PNG files, a quarter of each class for validation."""
    samples = read_digits()
    labels = [sample.label for sample in samples]
    train, val = train_test_split(samples, test_size=DIGITS_FOR_VAL, stratify=labels, random_state=0)
    for split, chosen in (("train", train), ("val", val)):
        for sample in chosen:
            path = folder / split / sample.label / f"{Path(sample.path).name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.pixels).save(path)


def write_photographs(folder: Path, count: int, side: int = HEIGHT) -> None:
    """Write JPEG files of smooth noise in two classes, by all cores; files that are there are kept.

    Args:
        folder: gets ``train/CLASS`` and ``val/CLASS``.
        count: the number of files.
        side: their shorter side, in pixels; the longer one is 4/3 of it. At 375 px a file has about 40 KB.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(partial(_write_photograph, folder, side), range(count)))


def _write_photograph(folder: Path, side: int, number: int) -> None:
    split, label = "train" if number % ONE_FOR_VAL else "val", number // ONE_FOR_VAL % 2
    path = folder / split / f"class{label}" / f"{number}.jpg"
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(number).integers(0, 256, (side // 5, side * 4 // 15, 3), np.uint8)
    half = path.with_suffix(".half")
    whole = Image.fromarray(coarse).resize((side * 4 // 3, side), Image.Resampling.BICUBIC)
    whole.save(half, "JPEG", quality=90)
    half.rename(path)


def with_test_split(root: Path, folder: Path) -> Path:
    """A folder with links to the images of another, and one of each class's validation images as its test split."""
    data = folder / "data"
    for split in ("train", "val"):
        for images in sorted((root / split).iterdir()):
            (data / split).mkdir(parents=True, exist_ok=True)
            (data / split / images.name).symlink_to(images, target_is_directory=True)
            if split == "val":
                (data / "test" / images.name).mkdir(parents=True)
                image = min(images.iterdir())
                (data / "test" / images.name / image.name).symlink_to(image)
    return data
