"""The benchmark of augmentation policies runs, and its table says what each side draws."""

from __future__ import annotations

from pathlib import Path

from benchmarks.policies import main


def test_a_round_of_each_side(tmp_path: Path) -> None:
    results = tmp_path / "results.md"
    settings = ("--image-sizes", "16", "--batch-size", "2", "--batches", "1", "--rounds", "1", "--policies", "trivial")
    main([*settings, "--results", str(results)])
    rows = [line.split(" | ") for line in results.read_text().splitlines() if line.startswith("| 20")]
    assert [row[3:5] for row in rows[:3]] == [
        ["ftexp", "each image"],
        ["torchvision, per image", "each image"],
        ["torchvision, batch", "the batch"],
    ]
