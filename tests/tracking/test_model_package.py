"""The best network as an MLflow model: out of a real run, into the registry, and served by another process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from served_models import ask_the_served_model

import ftexp

pytestmark = pytest.mark.slow

LOAD = """
import json, mlflow, numpy as np, pandas as pd
from PIL import Image
mlflow.set_tracking_uri("sqlite:///mlflow.db")
model = mlflow.pyfunc.load_model("models:/digits@best")
picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
Image.fromarray(picture).save("picture.png")
given = [["picture.png"], [open("picture.png", "rb").read()], [picture], ["picture.png"] * 33]
tables = [model.predict(pd.DataFrame({"image": images})) for images in given]
example = model.predict(model.input_example)
print(json.dumps({
    "columns": list(tables[0].columns), "rows": [len(table) for table in tables], "example": len(example),
    "empty": len(model.predict(pd.DataFrame({"image": []}))),
    "same": all(np.allclose(table.iloc[0, 1:].astype(float), tables[0].iloc[0, 1:].astype(float), atol=1e-6)
                for table in tables),
    "sum": float(tables[0].iloc[0, 2:].sum()),
    "run": model.metadata.run_id, "signature": str(model.metadata.signature),
}))
"""


def test_a_registered_model_takes_paths_bytes_and_arrays(tmp_path: Path) -> None:
    settings = ["stage=head", "stage.epochs=1", "audit.on_leak=off", "hydra.run.dir=run", "tracking.register_as=digits"]
    command = [sys.executable, "-m", "ftexp", *settings]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "was not recorded as an MLflow model" not in ended.stdout
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert loaded.returncode == 0, loaded.stderr
    seen = json.loads(loaded.stdout.splitlines()[-1])
    assert seen["columns"] == ["label", "probability", *(f"p({digit})" for digit in range(10))]
    assert seen["rows"] == [1, 1, 1, 33]
    assert seen["example"] == 1
    assert seen["empty"] == 0
    assert seen["same"]
    assert seen["sum"] == pytest.approx(1)
    assert seen["run"] == json.loads((tmp_path / "run" / "result.json").read_text())["mlflow_run_id"]
    assert "image" in seen["signature"]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ftexp").experiment_id
    (logged,) = client.search_logged_models([experiment])
    assert (logged.source_run_id, logged.status.value) == (seen["run"], "READY")
    files = [path for path in tmp_path.glob("mlruns/**/models/**/*") if path.is_file()]
    assert {"best.pt", "MLmodel"} <= {path.name for path in files}
    assert not [path for path in files if path.suffix in (".pkl", ".pth", ".pickle")]
    command = ["mlflow", "models", "serve", "-m", "models:/digits@best", "--env-manager", "local"]
    served = ask_the_served_model(tmp_path, command, tmp_path / "picture.png")
    answer = ftexp.load(tmp_path / "run").predict(tmp_path / "picture.png")[0]
    assert served["label"] == answer.label
    assert [served[f"p({digit})"] for digit in range(10)] == pytest.approx(answer.probabilities.tolist(), abs=1e-6)
