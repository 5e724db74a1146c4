"""The result of a job of Hydra's launcher."""

from __future__ import annotations

import pytest
from hydra.core.utils import JobReturn, JobStatus

from ftexp.sweeps.job import outcome


def test_a_job_that_ended_gives_what_it_returned() -> None:
    assert outcome(JobReturn(_return_value=[0.5], status=JobStatus.COMPLETED)) == ([0.5], None)


def test_a_job_that_failed_gives_one_reason_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    error = ValueError("postgresql://ftexp:secret@127.0.0.1 is away")
    value, reason = outcome(JobReturn(_return_value=error, status=JobStatus.FAILED, overrides=["stage=head"]))
    assert value is None
    assert reason is not None
    assert reason.startswith("ValueError: postgresql://")
    assert "secret" not in reason
    assert capsys.readouterr().err == ""
