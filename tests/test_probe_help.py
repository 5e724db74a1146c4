"""``--help`` of the commands that tell something before training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ftexp

SAID = {
    "labels": "probe.odds=4",
    "cross_validate": "It always scores a head",
    "learning_curve": "probe.more=200",
    "compare_models": "fine-tuned networks may rank differently",
    "pick_images": "probe.count=50",
}
CODE = f"""
import runpy, sys
for name in {list(SAID)}:
    sys.argv = [name, "--help"]
    runpy.run_module(f"ftexp.{{name}}")["main"]()
assert not {{"torch", "mlflow", "timm"}} & set(sys.modules)
"""


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for words in SAID.values():
        assert words in done.stdout


def test_what_runs_as_main_logs_under_its_own_name() -> None:
    """The log shows what ``ftexp`` says, and ``python -m ftexp.labels`` is called ``__main__``."""
    for file in Path(ftexp.__file__).parent.rglob("*.py"):
        code = file.read_text()
        assert 'if __name__ == "__main__":' not in code or "getLogger(__name__)" not in code, file
