"""The benchmarks that compare frameworks, on tiny runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import loss_parts, memory, side_by_side, step, throughput
from benchmarks.processes import Log, Outcome, Reached, run_process
from benchmarks.results import read_rows
from benchmarks.side_by_side import main


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


def outcome(seconds: float, accuracy: float) -> Outcome:
    return Outcome(seconds, accuracy, (50.0, 60.0), 100.0)


def test_sides_take_turns_and_ratios_are_taken_round_by_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seconds = {("ftexp", 0): 1.0, ("chapter", 0): 3.0, ("ftexp", 1): 2.0, ("chapter", 1): 10.0}
    turns: list[tuple[str, int]] = []

    def train(side: str, _: object, seed: int) -> Outcome:
        turns.append((side, seed))
        return outcome(seconds[side, seed], 0.5 + seed / 2)

    monkeypatch.setattr(side_by_side, "train", train)
    results = tmp_path / "results.md"
    options = ["--rounds", "2", "--sides", "ftexp", "chapter", "--results", str(results)]
    main(["head", "--root", str(tmp_path), *options])
    assert turns == [("ftexp", 0), ("chapter", 0), ("ftexp", 1), ("chapter", 1)]
    lines = results.read_text().splitlines()
    assert "## Head beside other frameworks" in lines
    assert "| chapter | 6.5 (3.0 to 10.0) | 4.00 (3.00 to 5.00) | 2 | 0.7500 (0.5000 to 1.0000) | 100 |" in lines[-1]


def test_logged_outcomes_are_not_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured: list[str] = []

    def train(side: str, *_: object) -> Outcome:
        measured.append(side)
        return outcome(4.0, 0.5)

    monkeypatch.setattr(side_by_side, "train", train)
    monkeypatch.setattr(side_by_side, "sweep", lambda *_: outcome(8.0, 0.75))
    where = ["--root", str(tmp_path), "--log", str(tmp_path / "log.jsonl"), "--results", str(tmp_path / "results.md")]
    options = [*where, "--rounds", "1"]
    main(["head", "--sides", "chapter", *options])
    main(["sweep", "--trials", "10", *options])
    assert measured == ["chapter"], "the sweep takes the chapter's run from the table of head"
    assert "| chapter | 40.0 (40.0 to 40.0) | 5.00 (5.00 to 5.00) |" in (tmp_path / "results.md").read_text()
    assert Log(tmp_path / "log.jsonl").once(
        f"chapter head, {tmp_path.name} 224 px, 1 workers, 20 epochs, default, seed 0", lambda: outcome(0, 0)
    ) == outcome(4.0, 0.5)


def test_a_framework_that_fails_is_left_out_with_its_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = "timm"

    def train(side: str, _: object, seed: int) -> Outcome:
        if side == failing:
            raise RuntimeError("timm_side.py ended with 1:\nno such option")
        return outcome(1.0, 0.5)

    monkeypatch.setattr(side_by_side, "train", train)
    results = tmp_path / "results.md"
    given = ["head", "--root", str(tmp_path), "--rounds", "2", "--results", str(results)]
    main([*given, "--sides", "ftexp", "timm", "chapter"])
    assert "timm         is left out: timm_side.py ended with 1:\nno such option" in capsys.readouterr().out
    (rows,) = read_rows(results).values()
    assert [(row["side"], row["n"]) for row in rows] == [("ftexp", "2"), ("chapter", "2")]
    failing = "ftexp"
    with pytest.raises(RuntimeError, match="timm_side"):
        main([*given, "--sides", "ftexp", "chapter"])


def test_a_process_that_fails_is_told_with_its_message(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.stderr.write('no memory left'); sys.exit(3)"]
    with pytest.raises(RuntimeError, match=r"ended with 3:\nno memory left"):
        run_process(command, tmp_path, lambda _: Reached())


def test_digits_are_there_as_files_where_no_folder_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[object, ...]] = []

    def train(_: str, arguments: argparse.Namespace, __: int) -> Outcome:
        for split in ("train", "val"):
            files = sorted((arguments.root / split).glob("*/*.png"))
            seen.append((split, Image.open(files[0]).size, len(files), len({file.parent for file in files})))
        return outcome(1.0, 1.0)

    monkeypatch.setattr(side_by_side, "train", train)
    main(["head", "--rounds", "1", "--sides", "ftexp", "--results", str(tmp_path / "results.md")])
    assert seen == [("train", (10, 10), 1347, 10), ("val", (10, 10), 450, 10)]
    assert "| digits at 224 px |" in (tmp_path / "results.md").read_text()


@pytest.mark.slow
def test_parts_and_two_processes_give_the_gradient_of_one_batch(tmp_path: Path) -> None:
    loss_parts.main(["--precisions", "float64", "--results", str(tmp_path / "results.md")])  # exits where they do not
    assert (tmp_path / "results.md").read_text().count("| float64 |") == 12


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
    assert (tmp_path / "results.md").read_text().count("| resnet10t | 2 at 32 px |") == 1


def test_with_folded_layers_the_backward_pass_keeps_less(tmp_path: Path) -> None:
    tiny = ["--models", "test_efficientnet", "--image-size", "64", "--batch-size", "8", "--steps", "1", "--rounds", "1"]
    step.main([*tiny, "--fold", "--device", "cpu", "--results", str(tmp_path / "results.md")])
    _, kept = (tmp_path / "results.md").read_text().split("## What is kept for the backward pass")
    *_, without, folded, ratio, _ = kept.strip().splitlines()[-1].split("|")
    assert 0 < float(folded) < 0.9 * float(without)
    assert float(ratio) == pytest.approx(float(folded) / float(without), abs=0.06)


@pytest.mark.slow
def test_peak_memory_of_few_and_more_images(tmp_path: Path) -> None:
    tiny = ["--counts", "40", "80", "--stages", "head", "--epochs", "1", "--rounds", "1"]
    memory.main([*tiny, "--results", str(tmp_path / "results.md")])
    assert "| head | 80 | 32 | 1 |" in (tmp_path / "results.md").read_text()


TINY_GPU_TABLE = ["--models", "resnet18", "--images", "80", "--image-size", "32", "--batch-size", "8", "--workers", "0"]


def test_without_a_gpu_the_table_says_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    throughput.main(["--models", "resnet50", "--sides", "step", "ftexp", "--results", str(tmp_path / "results.md")])
    (row,) = [line for line in (tmp_path / "results.md").read_text().splitlines() if "| resnet50 |" in line]
    assert "| all | not measured | not measured | not measured | 0 | no GPU was at hand |" in row


@pytest.mark.parametrize(
    ("side", "device", "compiled"),
    [("ftexp", "cuda", "true"), ("ftexp_auto", "cuda", "auto"), ("ftexp", "cpu", "auto")],
)
def test_ftexp_is_measured_compiled_and_as_it_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, side: str, device: str, compiled: str
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(throughput, "run_process", lambda command, *_: commands.append(command))
    monkeypatch.setattr(throughput, "with_test_split", lambda root, _: root)
    sizes = {"image_size": 32, "epochs": 1, "batch_size": 8, "cache_gib": 1.0}
    throughput.measure(argparse.Namespace(root=tmp_path, device=device, **sizes), "resnet18", side, 0)
    (command,) = commands
    assert [word for word in command if word.startswith("runtime.compile=")] == [f"runtime.compile={compiled}"]


@pytest.mark.slow
def test_throughput_beside_the_step_and_loops_that_need_no_other_package(tmp_path: Path) -> None:
    tiny = [*TINY_GPU_TABLE, "--steps", "2", "--epochs", "2", "--rounds", "1", "--device", "cpu"]
    results = tmp_path / "results.md"
    throughput.main([*tiny, "--sides", "step", "ftexp", "chapter", "timm", "--results", str(results)])
    tables = read_rows(results)
    rows = tables[throughput.SECTION]
    assert [row["side"] for row in rows] == ["step", "ftexp", "chapter", "timm"]
    assert float(rows[0]["of the step's"].split()[0]) == 1.0
    assert all(float(row["images/s"].split()[0]) > 0 for row in rows)
    ((bare,),) = (rows for section, rows in tables.items() if section != throughput.SECTION)
    rate = 1e3 * 8 / float(bare["bare ms"])
    assert float(rows[0]["images/s"].split()[0]) == pytest.approx(rate, abs=0.06), "of the step beside ftexp's"
