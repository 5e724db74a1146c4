"""What a small run does not import: each of these packages takes longer than the run needs for its pictures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = ("model=timm", "model.name=test_efficientnet", "model.weights=null", "data.image_size=32", "runtime.device=cpu")
QUICK = ("stage=head", "stage.epochs=1", "tracking=none", "audit.features=false", "hydra.run.dir=run")

# Package -> who needs it.
NEEDLESS = {
    "mlflow": "tracking=mlflow",
    "onnx": "many images",
    "onnxruntime": "many images",
    "optuna": "sweeps",
    "pandas": "tables of results, and scikit-learn",
    "pyarrow": "Parquet, and pandas",
    "scipy": "a head that is solved",
    "sklearn": "cross-validation, and the digits",
    "timm.optim": "optimizers that torch lacks",
    "torch._dynamo": "compiled steps",
    "torch._inductor": "compiled steps",
}


@pytest.fixture
def imported(tmp_path: Path, pictures: Path) -> set[str]:
    """The modules that a run of 24 pictures imports, from its start to its end."""
    command = [sys.executable, "-X", "importtime", "-m", "ftexp", "data=imagefolder", f"data.root={pictures}"]
    ended = subprocess.run([*command, *MODEL, *QUICK], cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "report.html").exists()
    return {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")}


def test_a_small_run_imports_what_it_needs_alone(imported: set[str]) -> None:
    assert {"torch", "timm", "PIL"} <= imported
    assert imported.intersection(NEEDLESS) == set()
