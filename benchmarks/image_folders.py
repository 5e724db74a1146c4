"""Folders of images, ``train/CLASS`` and ``val/CLASS``, which all compared frameworks can read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.model_selection import train_test_split

from ftexp.data.sources.digits import read_digits

WIDTH, HEIGHT = 500, 375
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


def write_photographs(folder: Path, count: int) -> None:
    """Write JPEG files of smooth noise, of about 40 KB each, in two classes."""
    rng = np.random.default_rng(0)
    for number in range(count):
        split, label = "train" if number % ONE_FOR_VAL else "val", number // ONE_FOR_VAL % 2
        path = folder / split / f"class{label}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (HEIGHT // 5, WIDTH // 5, 3), np.uint8)
        Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path, quality=90)


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
