"""Fabricated copies in the layout that torchvision expects on disk; nothing is downloaded."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from ftexp.config import TorchvisionDataConfig
from ftexp.data.loading.images import open_image
from ftexp.data.sources.registry import read_samples
from ftexp.data.sources.torchvision_sets import PUBLISHED_SPLITS
from ftexp.errors import DataError


def config(root: Path, name: str) -> TorchvisionDataConfig:
    return TorchvisionDataConfig(source="torchvision", name=name, root=str(root), download=False)


def fabricate_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        data = np.full((2, 3072), number, np.uint8)
        data[:, :1024] = 200  # the red plane comes first
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": [0, 1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane", "automobile"]}))
    # The published files are known by their MD5 sums; ours are other files.
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: True)


def test_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fabricate_cifar10(tmp_path, monkeypatch)
    samples = read_samples(config(tmp_path, "CIFAR10"))
    assert [s.split for s in samples] == ["train"] * 10 + ["test"] * 2
    assert samples[1].label == "automobile"
    assert samples[-1].path == "CIFAR10/test/000001"
    image = open_image(samples[-1])
    assert image.size == (32, 32)
    assert image.getpixel((3, 3)) == (200, 5, 5)


def test_files(tmp_path: Path) -> None:
    base = tmp_path / "oxford-iiit-pet"
    (base / "images").mkdir(parents=True)
    (base / "annotations").mkdir()
    for name in ("Abyssinian_1", "Abyssinian_2", "beagle_1", "beagle_2"):
        Image.new("RGB", (5, 4)).save(base / "images" / f"{name}.jpg")
    (base / "annotations/trainval.txt").write_text("Abyssinian_1 1 1 1\nbeagle_1 2 2 1\n")
    (base / "annotations/test.txt").write_text("Abyssinian_2 1 1 1\nbeagle_2 2 2 1\n")
    samples = read_samples(config(tmp_path, "OxfordIIITPet"))
    assert [(Path(s.path).name, s.label, s.split) for s in samples] == [
        ("Abyssinian_1.jpg", "Abyssinian", "train"),
        ("beagle_1.jpg", "Beagle", "train"),
        ("Abyssinian_2.jpg", "Abyssinian", "test"),
        ("beagle_2.jpg", "Beagle", "test"),
    ]
    assert open_image(samples[0]).size == (5, 4)


def test_of_several_names_of_a_class_the_first_is_taken(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for folder in ("n01440764", "n03888257"):
            file = tmp_path / "imagenette2" / split / folder / "1.jpeg"
            file.parent.mkdir(parents=True)
            Image.new("RGB", (5, 4)).save(file)
    samples = read_samples(config(tmp_path, "Imagenette"))
    assert [(s.label, s.split) for s in samples] == [
        ("tench", "train"),
        ("parachute", "train"),
        ("tench", "val"),
        ("parachute", "val"),
    ]


def test_every_offered_name_exists_and_takes_its_arguments() -> None:
    for name in PUBLISHED_SPLITS:
        assert hasattr(torchvision.datasets, name), name


def test_unknown_name() -> None:
    with pytest.raises(DataError, match=r"data\.name=cifar_10 is not supported.*Allowed are CIFAR10"):
        read_samples(config(Path("x"), "cifar_10"))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Flowers102 cannot be loaded from data\.root=.*Set data\.download=true"):
        read_samples(config(tmp_path, "Flowers102"))
