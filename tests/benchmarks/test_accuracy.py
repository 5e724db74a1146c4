"""The comparison of accuracies at equal wall time, on sides that guess."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import accuracy
from benchmarks.frameworks import budget

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
    options = ("--data", f"plain={pictures}", "--log", str(log), "--results", str(results), *sides)
    accuracy.main([*options, "--cells", "2"])
    assert not results.exists()
    accuracy.main(options)
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
    accuracy.main(options)  # everything is in the log


def given(sides: list[str], ftexp_minutes: list[float]) -> argparse.Namespace:
    return argparse.Namespace(data=["x", "y"], seeds=[0, 1, 2], sides=sides, minutes=1.0, ftexp_minutes=ftexp_minutes)


def cells_of(side: str, minutes: float, worst: float, step: float) -> list[accuracy.Cell]:
    cells = [accuracy.Cell(d, side, s, minutes, worst + s * step) for d in "xy" for s in range(3)]
    return [replace(cell, macro_f1=0.5, calibration_error=0.1, seconds=60.0, peak_mib=9.0) for cell in cells]


@pytest.mark.filterwarnings("error")
def test_sides_are_tested_in_pairs() -> None:
    better, worse = cells_of("a", 1.0, 0.9, 0.01), cells_of("b", 1.0, 0.8, 0.001)
    arguments = given(["a", "b"], [])
    assert accuracy.paired_tests([*better, *worse], "b", arguments) == "1 min: +0.1090, p = 0.031 (n = 6)"
    assert accuracy.paired_tests([*better, *worse], "a", arguments) == ""
    assert accuracy.paired_tests([*better, *cells_of("b", 1.0, 0.9, 0.01)], "b", arguments) == (
        "1 min: +0.0000, p = 1.000 (n = 6)"
    )
    assert accuracy.paired_tests([*better, worse[0]], "b", arguments) == "1 min: +0.1000 (n = 1)"


def test_ftexp_at_a_tenth_of_the_time_is_paired_with_the_others_at_their_own() -> None:
    arguments = given(["ftexp", "b"], [0.1, 1.0])
    keys = [(cell.side, cell.minutes) for cell in accuracy.missing(arguments, []) if (cell.data, cell.seed) == ("x", 0)]
    assert keys == [("ftexp", 0.1), ("ftexp", 1.0), ("b", 1.0)]
    short, long = cells_of("ftexp", 0.1, 0.7, 0.01), cells_of("ftexp", 1.0, 0.9, 0.01)
    table = accuracy.rows([*short, *long, *cells_of("b", 1.0, 0.8, 0.001)], arguments)
    assert [(row["data"], row["side"], row["minutes"], row["n"], row["accuracy"]) for row in table[:3]] == [
        ("x", "ftexp", 0.1, 3, "0.71 ± 0.01"),
        ("x", "ftexp", 1.0, 3, "0.91 ± 0.01"),
        ("x", "b", 1.0, 3, "0.801 ± 0.001"),
    ]
    assert table[2]["ftexp against it"] == "0.1 min: -0.0910, p = 0.031 (n = 6); 1 min: +0.1090, p = 0.031 (n = 6)"


def test_the_pace_of_a_trial_decides_how_many_epochs_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([4.0, 5.0, 6.0, 9.0])
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    trial = budget.Trial(began=0.0)
    for _ in range(3):
        trial.update()
    pace = trial.pace(batch_size=10)
    assert pace == budget.Pace(per_image=0.1, besides=7.0)
    # 100 images cost 10 s, 20 that are scored 1 s; the end takes 2 s and 3 s for 60 images.
    assert pace.epochs(seconds=56.0, train=100, val=20, test=60) == pytest.approx(4.0)
    assert pace.epochs(seconds=3.0, train=100, val=20, test=60) == 1.0, "one epoch at least"
    assert [budget.trial_updates(size) for size in (8, 32, 128)] == [9, 3, 2]


def test_what_the_programs_write_is_what_the_comparison_reads(pictures: Path, tmp_path: Path) -> None:
    root = accuracy.split_folder(pictures, tmp_path / "cell")
    written = argparse.Namespace(root=root, predictions=tmp_path / "p.csv")
    files = [str(file) for file in (root / "test").glob("*/*")]
    budget.write(written, files, ["a", "b"], [[0.9, 0.1] if Path(f).parent.name == "a" else [0.2, 0.8] for f in files])
    found = accuracy.scores(tmp_path / "p.csv", root)
    assert found == pytest.approx({"accuracy": 1.0, "macro_f1": 1.0, "calibration_error": 0.15})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "package"),
    [
        ("plain", "timm"),
        ("fastai", "fastai"),
        ("lightning", "lightning"),
        ("transformers", "accelerate"),
        ("autogluon", "autogluon"),
        ("lightly", "lightly_train"),
    ],
)
def test_a_real_side_predicts_all_test_images(pictures: Path, tmp_path: Path, side: str, package: str) -> None:
    python = os.environ.get(f"FTEXP_PYTHON_{side.upper()}", sys.executable)
    if subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode != 0:
        pytest.skip(f"{package} is not installed; FTEXP_PYTHON_{side.upper()} may name a Python that has it")
    log = tmp_path / "log.jsonl"
    options = ("--minutes", "0.1", "--seeds", "0", "--image-size", "32", "--python", f"{side}={python}")
    data = ("--data", f"plain={pictures}", "--log", str(log), "--results", str(tmp_path / "results.md"))
    accuracy.main([*data, *options, "--sides", side])
    (cell,) = accuracy.read_log(log)
    assert cell.reason is None
    assert cell.accuracy is not None
    assert cell.peak_mib is not None
