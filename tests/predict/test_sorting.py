"""Images in a folder per class: names that no file system takes, names that are taken, and nothing overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftexp.data.places import InMemory, LocalFile
from ftexp.predict.sorting import Sorter, folder_names


def test_every_class_has_a_folder_of_its_own_inside() -> None:
    names = folder_names(["a/b", "a_b", "A_B", "..", "", ".", "x" * 300, "é", "below_threshold", "below_threshold"])
    assert names[:6] == ["a_b", "a_b-2", "A_B-3", "_..", "_", "_."]
    assert len({name.casefold() for name in names}) == 10
    assert all(len(name.encode()) < 256 and "/" not in name for name in names)


@pytest.mark.parametrize("link", [False, True])
def test_images_of_one_name_get_distinct_ones_even_if_they_are_equal(tmp_path: Path, link: bool) -> None:
    images = [tmp_path / folder / "1.jpg" for folder in "abc"]
    for image in images:
        image.parent.mkdir()
        image.write_text("same" if image is not images[2] else "other")
    for _ in range(2):  # a second call adds nothing
        sorter = Sorter(tmp_path / "sorted", ["cat"], link=link)
        placed = [sorter.sort(str(image), LocalFile(str(image)), "cat") for image in images]
        assert [path.read_text() for path in placed] == ["same", "same", "other"]
        assert sorted(p.read_text() for p in (tmp_path / "sorted" / "cat").iterdir()) == ["other", "same", "same"]


def test_a_file_of_the_users_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_text("new")
    (tmp_path / "sorted" / "cat").mkdir(parents=True)
    (tmp_path / "sorted" / "cat" / "1.jpg").write_text("his")
    image = str(tmp_path / "1.jpg")
    Sorter(tmp_path / "sorted", ["cat"], link=False).sort(image, LocalFile(image), "cat")
    assert (tmp_path / "sorted" / "cat" / "1.jpg").read_text() == "his"
    assert sorted(path.read_text() for path in (tmp_path / "sorted" / "cat").iterdir()) == ["his", "new"]


@pytest.mark.parametrize("link", [False, True])
def test_an_image_without_a_file_of_its_own_is_written(tmp_path: Path, link: bool) -> None:
    for _ in range(2):  # a second call adds nothing
        sorter = Sorter(tmp_path / "sorted", ["cat"], link=link)
        for content in (b"one", b"two"):
            sorter.sort(f"{content.decode()}.tar/1.jpg", InMemory(content), "cat")
        assert sorted(p.read_bytes() for p in (tmp_path / "sorted" / "cat").iterdir()) == [b"one", b"two"]
