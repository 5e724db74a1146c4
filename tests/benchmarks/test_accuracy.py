"""The comparison of accuracies at equal wall time, on sides that guess."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import accuracy

GUESS = """
import argparse, csv, pathlib
parser = argparse.ArgumentParser()
for name in ("root", "seconds", "seed", "image-size", "device", "predictions"):
    parser.add_argument(f"--{name}")
given = parser.parse_args()
test = pathlib.Path(given.root) / "test"
with open(given.predictions, "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["path", "a", "b"])
    for image in sorted(test.glob("*/*")):
        writer.writerow([image.relative_to(test), 0.9, 0.1])
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for split, count in (("train", 10), ("val", 4)):
        for label in ("a", "b"):
            (tmp_path / "pictures" / split / label).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / split / label / f"{split}{i}.png")
    return tmp_path / "pictures"


def test_train_is_cut_for_validation_and_val_is_the_test(pictures: Path, tmp_path: Path) -> None:
    root = accuracy.split_folder(pictures, tmp_path / "cell")
    counts = {split: len(accuracy.images_of(root / split)) for split in ("train", "val", "test")}
    assert counts == {"train": 16, "val": 4, "test": 8}
    assert {image.name for image, _ in accuracy.images_of(root / "test")} == {f"val{i}.png" for i in range(4)}
    again = accuracy.split_folder(pictures, tmp_path / "again")
    assert [i.name for i, _ in accuracy.images_of(root / "val")] == [
        i.name for i, _ in accuracy.images_of(again / "val")
    ]


def test_scores_are_those_of_the_probabilities(pictures: Path, tmp_path: Path) -> None:
    root = accuracy.split_folder(pictures, tmp_path / "cell")
    rows = [f"a/val{i}.png,0.9,0.1" for i in range(4)] + [f"b/val{i}.png,0.9,0.1" for i in range(4)]
    (tmp_path / "p.csv").write_text("path,a,b\n" + "\n".join(rows))
    found = accuracy.scores(tmp_path / "p.csv", root)
    assert found == pytest.approx({"accuracy": 0.5, "macro_f1": 1 / 3, "calibration_error": 0.4})
    (tmp_path / "p.csv").write_text("path,a,b\n" + "\n".join(rows[1:]))
    with pytest.raises(AssertionError, match="1 test images have no prediction"):
        accuracy.scores(tmp_path / "p.csv", root)


def test_cells_are_measured_once_and_a_side_that_cannot_run_is_named(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "guess_accuracy.py").write_text(GUESS)
    (tmp_path / "broken_accuracy.py").write_text("import no_such_library")
    monkeypatch.setattr(accuracy, "FRAMEWORKS", tmp_path)
    log, results = tmp_path / "log.jsonl", tmp_path / "results.md"
    sides = ("--sides", "guess", "broken", "absent", "--seeds", "0", "1")
    given = ("--data", f"plain={pictures}", "--log", str(log), "--results", str(results), *sides)
    accuracy.main([*given, "--cells", "2"])
    assert not results.exists()
    accuracy.main(given)
    cells = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(cell["side"], cell["seed"], cell["accuracy"]) for cell in cells if cell["side"] == "guess"] == [
        ("guess", 0, 0.5),
        ("guess", 1, 0.5),
    ]
    assert len(cells) == 6
    text = results.read_text()
    assert "ModuleNotFoundError: No module named 'no_such_library'" in text
    assert "there is no absent_accuracy.py in benchmarks/frameworks" in text
    monkeypatch.setattr(accuracy, "measure", lambda *_: 1 / 0)
    accuracy.main(given)  # everything is in the log


def test_sides_are_tested_in_pairs(tmp_path: Path) -> None:
    arguments = type("Given", (), {"data": ["x", "y"], "seeds": [0, 1, 2], "sides": ["a", "b"], "minutes": 1.0})()
    better = [accuracy.Cell(d, "a", s, 1.0, accuracy=0.9 + s / 100) for d in "xy" for s in range(3)]
    worse = [accuracy.Cell(d, "b", s, 1.0, accuracy=0.8 + s / 1000) for d in "xy" for s in range(3)]
    assert accuracy.p_value([*better, *worse], "b", arguments) == "0.031 (n = 6)"
    assert accuracy.p_value([*better, *worse], "a", arguments) == ""
