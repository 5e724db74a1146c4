"""``python -m ftexp.predict``: tables, rows and folders of predictions, and what goes wrong."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from predictors import classifier, predict
from shards import png, serving, shard, tar_bytes

from ftexp.data.places import Container
from ftexp.inference.calibration import AbstainRule, Calibration
from ftexp.inference.classifier import Classifier

__all__ = ["classifier", "predict"]


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_table_has_the_answers_of_the_classifier(
    predict: Callable[..., SimpleNamespace], classifier: Classifier
) -> None:
    Path("photos/broken.jpg").write_text("hello")
    ended = predict("photos", "--output", "t.csv", "--top-k", "9", "--probabilities")
    assert ended.code == 0, ended.err
    assert "4 images in " in ended.err
    assert "1 that cannot be read  t.csv\n  photos/broken.jpg: is text, not an image\n" in ended.err
    rows = rows_of("t.csv")
    columns = "path,label,probability,label_2,probability_2,p(dog),p(cat),error"
    assert ",".join(rows[0]) == columns
    answers = classifier.predict("photos", top_k=2)
    assert [row["path"] for row in rows] == [one.path for one in answers]
    for row, one in zip(rows, answers, strict=True):
        if one.error is not None:
            assert list(row.values()) == [one.path, "", "", "", "", "", "", "is text, not an image"]
            continue
        assert [(row["label"], row["label_2"], row["error"])] == [(one.label, one.top[1][0], "")]
        assert np.float32(row["probability"]) == np.float32(one.probability)
        assert [np.float32(row[f"p({name})"]) for name in ("dog", "cat")] == list(one.probabilities)


def test_every_kind_of_table_has_the_same_rows(predict: Callable[..., SimpleNamespace]) -> None:
    Image.new("RGB", (20, 20)).save(b'photos/\xff\r\n,".png')
    for name in ("t.csv", "t.tsv", "t.jsonl", "t.parquet"):
        for _ in range(2):  # the second time, all rows are there
            ended = predict("photos", "--output", name, "--threshold", "0.9")
            assert ended.code == 0, ended.err
        assert f"{name} is complete: 4 rows" in ended.err
    csv_table = pd.read_csv("t.csv", dtype={"error": object})
    others = [pd.read_csv("t.tsv", sep="\t"), pd.read_json("t.jsonl", lines=True), pd.read_parquet("t.parquet")]
    for other in others:
        assert list(other.columns) == list(csv_table.columns)
        assert list(other["path"]) == list(csv_table["path"])
        np.testing.assert_allclose(other["probability"], csv_table["probability"], rtol=1e-6)
    assert any("udcff" in path for path in csv_table["path"])


def test_below_the_threshold_the_label_is_empty_and_the_likeliest_is_named(
    predict: Callable[..., SimpleNamespace], classifier: Classifier
) -> None:
    answers = classifier.predict("photos")
    threshold = sorted(one.probability for one in answers)[1]
    predict("photos", "--output", "t.csv", "--threshold", str(threshold))
    for row, one in zip(rows_of("t.csv"), answers, strict=True):
        assert row["label"] == (one.label if one.probability >= threshold else "")
        assert row["likeliest"] == one.label


def test_the_threshold_may_be_that_of_the_calibration(
    predict: Callable[..., SimpleNamespace], classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = predict("photos", "--threshold", "calibrated")
    assert ended.code == 1
    assert "was not calibrated" in ended.err
    _, middle, highest = sorted(one.probability for one in classifier.predict("photos"))
    figures, rule = (
        {"log_loss": 0.5, "ece": 0.1, "adaptive_ece": 0.1},
        AbstainRule(0.9, (middle + highest) / 2, 0.5, 1.0),
    )
    monkeypatch.setattr(classifier, "calibration", Calibration("5e", 9, 1.0, figures, figures, abstain=rule))
    ended = predict("photos", "--output", "t.csv", "--threshold", "calibrated")
    assert "2 below the threshold" in ended.err
    assert [row["label"] == "" for row in rows_of("t.csv")] == [
        float(row["probability"]) <= middle + 1e-6 for row in rows_of("t.csv")
    ]


def test_names_of_any_kind_and_lists_of_names(
    predict: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("photos")
    listing = os.fsencode("\n".join(["a b=1.png", "", "gone.png"])) + b"\r\n"
    Path("list.txt").write_bytes(listing)
    ended = predict("--files-from", "list.txt", "--top-k", "2", "d.png", "--", "-c.png")
    assert [line.split("\t")[0] for line in ended.out.splitlines()] == ["d.png", "-c.png", "a b=1.png", "gone.png"]
    assert ended.out.splitlines()[-1] == "gone.png\t\t\t\t\tthere is no such file"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(listing)))
    assert [line.split("\t")[0] for line in predict("-").out.splitlines()] == ["a b=1.png", "gone.png"]


def test_on_a_terminal_rows_are_aligned_and_paths_short(
    predict: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    Path("photos/x\x1b[31m.jpg").write_text("hello")
    out = predict(str(tmp_path / "photos"), "--top-k", "2").out
    lines = out.splitlines()
    assert len({line.index("0.") for line in lines[:3]}) == 1
    assert lines[0].startswith("photos/-c.png ")
    assert "\x1b" not in out
    assert "not classified: is text, not an image" in lines[3]


def test_images_at_urls_and_in_tars_are_those_of_their_files(
    predict: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same three pictures, by five ways to name them."""
    monkeypatch.setattr("ftexp.data.remote.PAUSE_SECONDS", 0)
    names, colours = ["0000.png", "0001.png", "0002.png"], ["red", "green", "blue"]
    pictures = {name: png(colour, number) for number, (name, colour) in enumerate(zip(names, colours, strict=True))}
    memory = fsspec.filesystem("memory")
    for name, content in pictures.items():
        Path(name).write_bytes(content)
        memory.pipe(f"/predicted/{name}", content)
    Path("s.tar").write_bytes(shard(0, 3))
    memory.pipe("/predicted/s.tar", shard(0, 3))
    Path("m.csv").write_text("path,label\n" + "".join(f"{name},x\n" for name in names))

    def answers(*arguments: str) -> tuple[list[str], list[str]]:
        ended = predict(*arguments)
        rows = [line.partition("\t") for line in ended.out.splitlines()]
        return [path for path, _, _ in rows], [answer for _, _, answer in rows]

    expected = answers(*names)[1]
    assert answers("memory://predicted/*.png") == ([f"memory:///predicted/{name}" for name in names], expected)
    assert answers("s.tar") == ([f"s.tar/{name}" for name in names], expected)
    assert answers("memory://predicted/s.tar") == ([f"memory://predicted/s.tar/{name}" for name in names], expected)
    at_root = ["data=manifest", "data.file=m.csv", "data.root=memory://predicted"]
    assert answers("--data", *at_root) == ([f"memory://predicted/{name}" for name in names], expected)
    with serving(pictures) as url:
        listed = ["s.tar/0002.png", "s.tar/none.png", f"{url}/0001.png", f"{url}/broken", "memory://predicted/0000.png"]
        Path("list.txt").write_text("\n".join(listed))
        paths, found = answers("--files-from", "list.txt")
    assert paths == listed
    assert [found[0], found[2], found[4]] == [expected[2], expected[1], expected[0]]
    assert found[1].endswith("s.tar has no image none.png")
    assert "cannot be reached: 503" in found[3]


def test_a_tar_is_listed_once(predict: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("s.tar").write_bytes(shard(0, 3))
    Path("list.txt").write_text(
        "s.tar/0000.png\nnone.tar.tar/1.png\nmemory://none/s.tar/1.png\nmemory://none/s.tar/2.png"
    )
    listed: list[str] = []
    of = Container.of
    monkeypatch.setattr(Container, "of", lambda path: (listed.append(path), of(path))[1])
    assert len(predict("s.tar", "--files-from", "list.txt").out.splitlines()) == 7
    assert listed == ["s.tar", "memory://none/s.tar"]  # also where it cannot be


def test_images_in_tars_are_sorted_into_folders(predict: Callable[..., SimpleNamespace]) -> None:
    Path("s.tar").write_bytes(shard(0, 3))
    for _ in range(2):  # the second time, all are there
        assert predict("s.tar", "--sort-into", "sorted", "--link").code == 0
        assert sorted(file.read_bytes() for file in Path("sorted").rglob("*.*")) == sorted(
            png(colour, number) for number, colour in enumerate(("red", "green", "blue"))
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No images are named"),
        (["-", "-"], r"Standard input \(-\) is named twice"),
        (["empty"], "empty is a folder without images"),
        (["memory://none/a.png"], r"memory://none/a\.png: there is no such file\n.*No image could be read"),
        (["memory://none/*.png"], r"memory://none/\*\.png matches no file"),
        (["none.tar"], r"none\.tar has no images that can be read where they are"),
        (["--data", "data.root=x"], "--data names no data set: begin with data=manifest"),
        (
            ["--data", "data=digits", "--sort-into", "x"],
            "--sort-into copies files, and the images of this data set are",
        ),
        (["photos", "--output", "t.xlsx"], r"--output t.xlsx: its name says what is written. Let it end in .csv"),
        (["photos", "--threshold", "90"], "--threshold 90: give a probability, from 0 to 1, or calibrated"),
        (["photos", "--top-k", "0"], "--top-k 0: it has to be at least 1"),
        (["photos", "--batch-size", "0"], "batch_size=0"),
        (["photos", "--link"], "--link belongs to --sort-into"),
        (["photos", "--overwrite"], "--overwrite belongs to --output"),
        (["--files-from", "gone.txt"], "The list of images gone.txt cannot be read: No such file"),
        (["notes.txt"], "No image could be read. A list of images is given as --files-from notes.txt"),
        (["photos", "--sort-into", "photos/sorted"], "its images would be predicted, too, because of photos"),
    ],
)
def test_a_mistake_is_one_message(predict: Callable[..., SimpleNamespace], arguments: list[str], message: str) -> None:
    Path("empty").mkdir()
    Path("notes.txt").write_text("a.png\n")
    Path("none.tar").write_bytes(tar_bytes({"0.cls": b"red"}))
    ended = predict(*arguments)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert len([line for line in ended.err.splitlines() if line.startswith("ftexp: ")]) == 1
    assert re.search(message, ended.err), ended.err


def test_images_are_copied_or_linked_into_folders_and_stay_where_they_are(
    predict: Callable[..., SimpleNamespace], classifier: Classifier
) -> None:
    Path("photos/more").mkdir()
    Image.open("photos/d.png").transpose(Image.Transpose.ROTATE_90).save("photos/more/d.png")
    before = {path: path.read_bytes() for path in Path("photos").rglob("*.png")}
    labels = {one.path: one.label for one in classifier.predict("photos")}
    for _ in range(2):  # the second time finds what the first has copied
        assert predict("photos", "--sort-into", "sorted").code == 0
        copies = sorted(Path("sorted").rglob("*.png"))
        assert sorted(path.read_bytes() for path in copies) == sorted(before.values())
    for path, content in before.items():
        assert content in [copy.read_bytes() for copy in Path("sorted", str(labels[str(path)])).iterdir()]
        assert path.stat().st_nlink == 1
    assert before == {path: path.read_bytes() for path in Path("photos").rglob("*.png")}
    predict("photos", "--sort-into", "linked", "--link", "--threshold", "1")
    assert {path.stat().st_nlink for path in before} == {2}
    assert {path.parent.name for path in Path("linked").rglob("*.png")} == {"below_threshold"}


@pytest.mark.slow
def test_help_is_quick_and_an_early_reader_leaves_no_traceback() -> None:
    code = "import sys; from ftexp.predict.__main__ import main; main(['--help'])"
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0
    assert "--sort-into" in ended.stdout
    assert not re.search(r"\| +torch$", ended.stderr, re.MULTILINE)
