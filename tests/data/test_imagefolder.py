from __future__ import annotations

from pathlib import Path

import pytest

from ftexp.data.imagefolder import read_imagefolder
from ftexp.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def found(root: Path) -> list[tuple[str, str, str | None]]:
    return [(str(Path(s.path).relative_to(root)), s.label, s.split) for s in read_imagefolder(str(root))]


def test_one_folder_of_classes(tmp_path: Path) -> None:
    touch(tmp_path, "class10/a.jpg", "class2/b.png", "class2/deep/c.png", "README.md")
    assert found(tmp_path) == [
        ("class2/b.png", "class2", None),
        ("class2/deep/c.png", "class2", None),
        ("class10/a.jpg", "class10", None),
    ]


def test_splits_as_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "test/b/4.jpg")
    assert [(label, split) for _, label, split in found(tmp_path)] == [
        ("a", "train"),
        ("b", "train"),
        ("a", "val"),
        ("b", "test"),
    ]


def test_hidden_and_clutter_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/.DS_Store", "a/.cache/2.jpg", "a/Thumbs.db", ".git/x/3.jpg", "b/4.jpg")
    assert [path for path, _, _ in found(tmp_path)] == ["a/1.jpg", "b/4.jpg"]


def test_a_class_called_train(tmp_path: Path) -> None:
    touch(tmp_path, "bus/1.jpg", "train/2.jpg", "car/3.jpg")
    assert [label for _, label, _ in found(tmp_path)] == ["bus", "car", "train"]


def test_any_file_counts_as_an_image_so_that_the_check_names_it(tmp_path: Path) -> None:
    touch(tmp_path, "a/notes.txt", "b/1.jpg")
    assert [path for path, _, _ in found(tmp_path)] == ["a/notes.txt", "b/1.jpg"]


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root=.*nowhere does not exist.*one folder of images per class"):
        read_imagefolder(str(tmp_path / "nowhere"))


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "pictures.zip")
    with pytest.raises(DataError, match="is a file, not a folder"):
        read_imagefolder(str(tmp_path / "pictures.zip"))


def test_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no folders, so there are no classes"):
        read_imagefolder(str(tmp_path))


def test_empty_class(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/.hidden")
    with pytest.raises(DataError, match=r"b holds no files: put the images of class 'b' there"):
        read_imagefolder(str(tmp_path))


def test_unknown_split_is_named_with_the_nearest(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "vall/a/1.jpg")
    with pytest.raises(DataError, match=r"'vall' is none of train, val, test\. Did you mean 'val'\?"):
        read_imagefolder(str(tmp_path))
