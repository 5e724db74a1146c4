"""``test.max_uses`` as a user meets it: the second run is refused before it trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

QUICK = ("stage=head", "stage.epochs=1", "data.image_size=32", "audit.on_leak=off", "test.max_uses=1")


def ftexp(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ftexp", f"hydra.run.dir={name}", *QUICK]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_the_second_run_is_refused_before_training(tmp_path: Path) -> None:
    first = ftexp(tmp_path, "first")
    assert first.returncode == 0, first.stderr
    second = ftexp(tmp_path, "second")
    assert second.returncode == 1
    assert "This test set has been used 1 times, and test.max_uses=1:" in second.stderr
    assert str(tmp_path / "first") in second.stderr
    assert "Traceback" not in second.stderr
    for trace in ("plan.png", "metrics.csv", "checkpoints"):
        assert (tmp_path / "first" / trace).exists()
        assert not (tmp_path / "second" / trace).exists()
