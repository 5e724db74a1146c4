"""The whole main job runs on an accelerator, and the benchmark counts what it copies and waits for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.copies import JOBS, main


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_every_job_runs_and_no_step_waits(job: str, tmp_path: Path) -> None:
    rows = main(["--jobs", job, "--results", str(tmp_path / "results.md")])
    assert {row["waits"] for row in rows} == {"1" if job == "predict" else "0"}, "an answer is read batch by batch"
    trains = {"train", "validation"} - ({"train"} if job == "head, solved" else set())
    kinds = {"answers"} if job in ("evaluate", "predict") else trains
    assert kinds <= {row["pass"] for row in rows}
    assert f"| {job} |" in (tmp_path / "results.md").read_text()
