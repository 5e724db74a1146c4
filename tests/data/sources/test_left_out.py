from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ftexp.config import DataConfig
from ftexp.data.loading.screening import leave_out, screen_images
from ftexp.data.places import LocalFile
from ftexp.data.samples import Sample, SampleTable
from ftexp.errors import DataError

SKIP = DataConfig(source="imagefolder", on_bad_image="skip")


def samples_of(**counts: int) -> list[Sample]:
    return [Sample(f"{label}/{i}.jpg", label) for label, count in counts.items() for i in range(count)]


def lose(samples: list[Sample], folder: Path, reason: str = "is no image", **counts: int) -> list[Sample]:
    bad = [row for row, s in enumerate(samples) if int(Path(s.path).stem) < counts.get(s.label, 0)]
    return list(leave_out(SampleTable.of(samples), dict.fromkeys(bad, reason), SKIP, folder))


def test_classes_that_lose_all_or_more_than_half_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = lose(samples_of(cat=4, dog=4, bee=4, ant=3), tmp_path, cat=4, dog=3, bee=2)
    assert [sample.path for sample in kept] == [
        "dog/3.jpg",
        "bee/2.jpg",
        "bee/3.jpg",
        *(f"ant/{i}.jpg" for i in range(3)),
    ]
    named = [record.message for record in caplog.records if record.message.lower().startswith("class")]
    assert named == [
        "CLASS 'cat' IS LOST: all of its 4 images are bad, so this run does not train it. For example, cat/0.jpg: is no"
        " image.",
        "Class 'dog' loses 3 of its 4 images. For example, dog/0.jpg: is no image.",
    ]


def test_no_image_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"All 4 images are bad, so none is left\. For example, cat/0\.jpg: is no image"
    ):
        lose(samples_of(cat=2, dog=2), tmp_path, cat=2, dog=2)


def test_a_file_that_may_not_be_read_is_an_error_even_where_bad_images_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = []
    for name in ("good.png", "secret.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
        samples.append(Sample(str(tmp_path / name), "a"))
    read = LocalFile.read

    def read_unless_secret(file: LocalFile) -> bytes:
        if "secret" in file.path:
            raise PermissionError(13, "Permission denied", file.path)
        return read(file)

    monkeypatch.setattr(LocalFile, "read", read_unless_secret)
    with pytest.raises(DataError, match=r"1 files cannot be read \(permission denied\), for example .*secret\.png"):
        screen_images(samples, SKIP, tmp_path)
