"""What a check of labels leaves: the table, the page, and a manifest that a run can read."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shards import write_shards

from ftexp.config import ManifestConfig, ProbeConfig
from ftexp.data.samples import Sample
from ftexp.data.sources.manifest import read_manifest
from ftexp.report.label_files import write_cleaned, write_labels
from ftexp.report.label_gallery import JudgedLabel

DROP = ProbeConfig(odds=4.0, cleaned="drop", neighbours=2, gallery=1, folds=2, repeats=1, count=1)
RELABEL = ProbeConfig(odds=4.0, cleaned="relabel", neighbours=2, gallery=5, folds=2, repeats=1, count=1)
EVIL = "<script>alert('x')</script>"


@pytest.fixture
def judged(tmp_path: Path) -> list[JudgedLabel]:
    (tmp_path / "images").mkdir()
    samples = []
    for i, (label, split) in enumerate([(EVIL, "train"), ("bee", "val"), ("bee", "train")]):
        path = tmp_path / "images" / f"{i}.png"
        Image.new("RGB", (200, 100), (40 * i, 0, 0)).save(path)
        samples.append(Sample(str(path), label, split, group=f"g{i}"))
    return [
        JudgedLabel(samples[0], 0.01, "bee", 0.9, True, True, (samples[1], samples[2])),
        JudgedLabel(samples[1], 0.6, "bee", 0.6, False, True, (samples[2],)),
        JudgedLabel(samples[2], 0.7, "bee", 0.7, False, False, ()),
    ]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_all_and_the_page_the_first(tmp_path: Path, judged: list[JudgedLabel]) -> None:
    write_labels(tmp_path, judged, DROP)
    first, second, third = rows(tmp_path / "labels.csv")
    assert (first["rank"], first["label"], first["likely_label"], first["suspect"]) == ("1", EVIL, "bee", "1")
    assert (first["probability"], first["likely_probability"], first["split"]) == ("0.01", "0.9", "train")
    assert (second["neighbour_1_label"], second["neighbour_2"], second["suspect"]) == ("bee", "", "0")
    assert third["checked"] == "0"
    html = (tmp_path / "labels.html").read_text()
    assert html.count("data:image/jpeg;base64,") == 3  # the image and its two neighbours
    assert "1 of 3 labels are suspects" in html
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;") == 1


def test_an_image_that_is_gone_leaves_a_word(tmp_path: Path, judged: list[JudgedLabel]) -> None:
    Path(judged[0].sample.path).unlink()
    write_labels(tmp_path, judged, DROP)
    assert (tmp_path / "labels.html").read_text().count("(cannot be read any more)") == 1


@pytest.mark.parametrize(
    ("settings", "kept"), [(DROP, {"1": "bee", "2": "bee"}), (RELABEL, dict.fromkeys("012", "bee"))]
)
def test_the_cleaned_manifest_can_be_read_by_the_settings_that_are_told(
    tmp_path: Path,
    judged: list[JudgedLabel],
    settings: ProbeConfig,
    kept: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "test.png")
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "images").iterdir()}
    test = [{"path": "images/test.png", "label": "bee", "split": "test", "group": "t", "time": ""}]
    told = write_cleaned(tmp_path / "cleaned.csv", judged, test, settings)
    assert ("left out" if settings is DROP else "relabelled") in told
    given = dict(re.findall(r"data\.(file|root|split_column|group_column)=(\S+)", told))
    samples = read_manifest(ManifestConfig(source="manifest", **given))
    found = {Path(sample.path).stem: sample.label for sample in samples}
    assert found == {**kept, "test": "bee"}
    assert {Path(s.path).stem: (s.split, s.group) for s in samples if Path(s.path).stem in ("1", "test")} == {
        "1": ("val", "g1"),
        "test": ("test", "t"),
    }
    assert {path: path.read_bytes() for path in (tmp_path / "images").iterdir()} == before


def test_the_cleaned_manifest_of_images_in_a_shard_and_at_urls(tmp_path: Path) -> None:
    shard = write_shards(tmp_path / "shards", count=1, images=3) / "part-000.tar"
    paths = [f"{shard}/0000.png", f"{shard}/0001.png", "memory://photos/1.png"]
    judged = [JudgedLabel(Sample(path, "red", "train"), 0.9, "red", 0.9, False, True, ()) for path in paths]
    for some in (judged, judged[:2], judged[2:]):
        told = write_cleaned(tmp_path / "cleaned.csv", some, [], DROP)
        given = dict(re.findall(r"data\.(file|root|split_column)=(\S+)", told))
        samples = read_manifest(ManifestConfig(source="manifest", **given))
        assert [(sample.path, sample.split) for sample in samples] == [
            (one.sample.path, "train") for one in sorted(some, key=lambda one: one.sample.path)
        ]


def test_images_without_files_have_no_manifest(tmp_path: Path) -> None:
    sample = Sample("digits/1", "1", "train", pixels=np.zeros((8, 8, 3), np.uint8))
    told = write_cleaned(tmp_path / "cleaned.csv", [JudgedLabel(sample, 0.1, "7", 0.9, True, True, ())], [], DROP)
    assert "not files" in told
    assert not (tmp_path / "cleaned.csv").exists()
