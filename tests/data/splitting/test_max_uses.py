"""``test.max_uses`` as a user meets it: the second run is refused before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import CommandLine

QUICK = ("stage=head", "stage.epochs=1", "data.image_size=32", "audit.on_leak=off", "test.max_uses=1", "tracking=none")
PICTURES = ("data=imagefolder", "data.root=pictures")


@pytest.mark.usefixtures("pictures")
def test_the_second_run_is_refused_before_training(tmp_path: Path, command_line: CommandLine) -> None:
    first = command_line("hydra.run.dir=first", *PICTURES, *QUICK)
    assert first.returncode == 0, first.stderr
    second = command_line("hydra.run.dir=second", *PICTURES, *QUICK)
    assert second.returncode == 1
    assert "This test set has been used once, and test.max_uses=1:" in second.stderr
    assert str(tmp_path / "first") in second.stderr
    assert "Traceback" not in second.stderr
    for trace in ("plan.png", "metrics.csv", "checkpoints"):
        assert (tmp_path / "first" / trace).exists()
        assert not (tmp_path / "second" / trace).exists()
