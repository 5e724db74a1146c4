"""A dataset fabricated on disk; nothing is downloaded. Runs where the extra ``huggingface`` is installed."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from PIL import Image

from ftexp.config import HuggingFaceDataConfig
from ftexp.data.loading.images import open_image
from ftexp.data.sources.registry import read_samples
from ftexp.errors import DataError


def config(folder: Path, **settings: str) -> HuggingFaceDataConfig:
    return HuggingFaceDataConfig(
        source="huggingface", name=str(folder / "saved"), root=str(folder / "images"), **settings
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    datasets = pytest.importorskip("datasets", reason="needs the optional extra huggingface")

    def png(red: int) -> dict[str, object]:
        buffer = io.BytesIO()
        Image.new("RGB", (5, 4), (red, 0, 0)).save(buffer, "png")
        return {"bytes": buffer.getvalue(), "path": None}

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    sets = {
        name: datasets.Dataset.from_dict({"image": [png(10), png(20)], "label": [1, 0]}, features=features)
        for name in ("train", "validation", "unsupervised")
    }
    datasets.DatasetDict(sets).save_to_disk(str(tmp_path / "saved"))
    return tmp_path


def test_images_are_written_out_once_and_classes_have_their_names(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = read_samples(config(saved))
    assert [(s.label, s.split) for s in samples] == [("dog", "train"), ("cat", "train"), ("dog", "val"), ("cat", "val")]
    assert open_image(samples[1]).getpixel((0, 0)) == (20, 0, 0)
    assert "'unsupervised' is not one of" in caplog.text
    written = Path(samples[0].path).stat().st_mtime_ns
    assert [s.path for s in read_samples(config(saved))] == [s.path for s in samples]
    assert Path(samples[0].path).stat().st_mtime_ns == written


def test_unknown_column(saved: Path) -> None:
    with pytest.raises(DataError, match=r"data\.label_column=labels: .* no such column\. Did you mean 'label'\?"):
        read_samples(config(saved, label_column="labels"))


def test_without_the_extra_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'ftexp\[huggingface\]'"):
        read_samples(config(tmp_path))


def test_several_labels_an_image_are_refused(saved: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the optional extra huggingface")
    rows = datasets.load_from_disk(str(saved / "saved"))["train"]
    datasets.DatasetDict({"train": rows.remove_columns("label").add_column("label", [[0, 1], [1]])}).save_to_disk(
        str(saved / "several")
    )
    with pytest.raises(
        DataError, match=r"column 'label' contains lists\. Several labels for an image .* not supported"
    ):
        read_samples(HuggingFaceDataConfig(source="huggingface", name=str(saved / "several"), root=str(saved / "i")))


def test_a_folder_of_parquet_files_as_it_is_on_the_hub(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the optional extra huggingface")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", saved / "cache")
    rows = datasets.load_from_disk(str(saved / "saved"))["train"]
    (saved / "repository").mkdir()
    rows.to_parquet(str(saved / "repository" / "train-00000-of-00001.parquet"))
    config = HuggingFaceDataConfig(source="huggingface", name=str(saved / "repository"), root=str(saved / "images"))
    assert [(s.label, s.split) for s in read_samples(config)] == [("dog", "train"), ("cat", "train")]


class Rows(list[dict[str, object]]):
    """What is used of a dataset, without the package."""

    column_names = ("image", "label")
    features: ClassVar[dict[str, object]] = {"image": None, "label": None}
    _fingerprint = "0"

    def cast_column(self, *_: object) -> Rows:
        return self


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": None, "label": "cat"}, r"saved, split 'train', row 1: no image\. Remove this row\."),
        ({"image": {"bytes": b"x", "path": None}, "label": None}, "saved, split 'train', row 1: no label"),
    ],
)
def test_rows_that_lack_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], message: str
) -> None:
    rows = Rows([{"image": {"bytes": b"x", "path": None}, "label": "cat"}, row])
    package = SimpleNamespace(Image=lambda decode: None, load_dataset=lambda name: {"train": rows})
    monkeypatch.setitem(sys.modules, "datasets", package)
    with pytest.raises(DataError, match=message):
        read_samples(config(tmp_path))
