"""The harness of the comparisons on tiny runs; the other frameworks have an environment of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import memory, side_by_side, step
from benchmarks.side_by_side import main, run_process


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("a", "b"):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for i in range(4):
                Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "pictures"


def test_sides_take_turns_and_ratios_are_taken_round_by_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seconds = {("ftexp", 0): 1.0, ("chapter", 0): 3.0, ("ftexp", 1): 2.0, ("chapter", 1): 10.0}
    turns: list[tuple[str, int]] = []

    def measure(side: str, _: object, seed: int, folder: Path) -> side_by_side.Outcome:
        turns.append((side, seed))
        return side_by_side.Outcome(seconds[side, seed], 0.5 + seed / 2, 100.0)

    monkeypatch.setattr(side_by_side, "train", measure)
    results = tmp_path / "results.md"
    options = ["--rounds", "2", "--sides", "ftexp", "chapter", "--results", str(results)]
    main(["head", *options])
    assert turns == [("ftexp", 0), ("chapter", 0), ("ftexp", 1), ("chapter", 1)]
    lines = results.read_text().splitlines()
    assert "## Head beside other frameworks" in lines
    assert "| chapter | 6.5 (3.0 to 10.0) | 4.00 | 2 | 0.7500 | 100 |" in lines[-1]


def test_a_process_that_fails_ends_the_comparison_with_its_message(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.stderr.write('no memory left'); sys.exit(3)"]
    with pytest.raises(RuntimeError, match=r"ended with 3:\nno memory left"):
        run_process(command, tmp_path, lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("table", ["head", "partial"])
def test_two_real_sides(pictures: Path, tmp_path: Path, table: str) -> None:
    options = ["--root", str(pictures), "--epochs", "1", "--rounds", "1", "--image-size", "32", "--workers", "0"]
    main([table, *options, "--sides", "ftexp", "chapter", "--results", str(tmp_path / "results.md")])
    assert (tmp_path / "results.md").read_text().count("| pictures at 32 px |") == 2


@pytest.mark.slow
def test_a_sweep_and_the_start(pictures: Path, tmp_path: Path) -> None:
    options = ["--root", str(pictures), "--epochs", "1", "--rounds", "1", "--image-size", "32", "--workers", "0"]
    main(["sweep", *options, "--trials", "2", "--results", str(tmp_path / "results.md")])
    main(["start", "--rounds", "1", "--results", str(tmp_path / "results.md")])
    text = (tmp_path / "results.md").read_text()
    assert "| --help |" in text
    assert text.count("| pictures at 32 px |") == 2


def test_the_step_is_measured_against_the_bare_loop(tmp_path: Path) -> None:
    tiny = ["--models", "resnet10t", "--image-size", "32", "--batch-size", "2", "--steps", "1", "--rounds", "2"]
    step.main([*tiny, "--device", "cpu", "--results", str(tmp_path / "results.md")])
    assert "| resnet10t | 2 at 32 px |" in (tmp_path / "results.md").read_text()


@pytest.mark.slow
def test_peak_memory_of_few_and_more_images(tmp_path: Path) -> None:
    tiny = ["--counts", "40", "80", "--stages", "head", "--epochs", "1", "--rounds", "1"]
    memory.main([*tiny, "--results", str(tmp_path / "results.md")])
    assert "| head | 80 | 32 | 1 |" in (tmp_path / "results.md").read_text()
