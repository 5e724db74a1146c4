"""The whole main job runs on an accelerator, and the benchmark counts what it copies and waits for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.copies import JOBS, main


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_every_job_runs_and_no_step_waits(job: str, tmp_path: Path) -> None:
    rows = main(["--jobs", job, "--results", str(tmp_path / "results.md")])
    answers = job in ("evaluate", "predict")
    assert {row["waits"] for row in rows} == {"1" if answers else "0"}, "an answer is read batch by batch"
    kinds = {"answers"} if answers else {"train", "validation"} - ({"train"} if job == "head, solved" else set())
    assert kinds <= {row["pass"] for row in rows}
    assert f"| {job} |" in (tmp_path / "results.md").read_text()
