"""A table of predictions is gone on with after it broke off, by what began it and by nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image
from predictors import classifier, predict

from ftexp.inference.classifier import Classifier
from ftexp.inference.predictions import Prediction

__all__ = ["classifier", "predict"]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_table_that_broke_off_anywhere_is_completed(predict: Callable[..., SimpleNamespace], name: str) -> None:
    os.rename("photos/d.png", 'photos/d\n"e".png')
    assert predict("photos", "--output", name).code == 0
    whole = Path(name).read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1, whole.rindex(b"e") - 3):
        Path(name).write_bytes(whole[:length])
        assert predict("photos", "--output", name).code == 0
        assert Path(name).read_bytes() == whole, length


def test_parquet_is_gone_on_with_part_by_part(
    predict: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftexp.predict.tables.ROWS_PER_PART", 1)
    predict("photos", "--output", "t.parquet")
    parts = sorted(Path("t.parquet").glob("part-*"))
    whole = pd.read_parquet("t.parquet")
    assert len(parts) == 3
    parts[2].unlink()
    assert "1 image in" in predict("photos", "--output", "t.parquet").err
    pd.testing.assert_frame_equal(pd.read_parquet("t.parquet"), whole)


def test_ctrl_c_leaves_a_table_that_can_be_gone_on_with(
    predict: Callable[..., SimpleNamespace], classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Classifier.stream

    def interrupted(self: Classifier, *given: object, **options: object) -> Iterator[Prediction]:
        answers = stream(self, *given, **options)  # type: ignore[arg-type]
        yield next(answers)
        raise KeyboardInterrupt

    for name in ("t.csv", "t.parquet"):
        with monkeypatch.context() as patched:
            patched.setattr(Classifier, "stream", interrupted)
            ended = predict("photos", "--output", name)
        assert ended.code == 130
        assert f"{name} has 1 row; run the same command again to continue it" in ended.err
        assert "2 images in" in predict("photos", "--output", name).err


@pytest.mark.slow
def test_a_process_that_is_interrupted_is_gone_on_with(classifier: Classifier, tmp_path: Path) -> None:
    Image.new("RGB", (90, 80), "red").save(tmp_path / "one.png")
    (photos := tmp_path / "photos").mkdir()
    for number in range(6000):
        os.link(tmp_path / "one.png", photos / f"{number}.png")
    command = [sys.executable, "-m", "ftexp.predict", str(classifier.run), str(photos), "--output", "t.csv"]
    table = tmp_path / "t.csv"
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 100
    while not table.exists() or table.stat().st_size < 20_000:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    rows = len(table.read_text().splitlines()) - 1
    assert (process.returncode, 0 < rows < 6000) == (130, True), said
    assert f"t.csv has {rows:,} rows; run the same command again to continue it" in said
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True)
    assert f"predict {6000 - rows:,} images in" in again.stderr
    assert pd.read_csv(table)["path"].nunique() == 6000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["photos", "--top-k", "2"], "t.csv was written with --top-k 1, not 2. Give another --output, or --overwrite"),
        (["photos", "--threshold", "0.5"], "was written with --threshold null, not 0.5"),
        (
            ["photos/d.png"],
            r"t.csv holds other images: its row 1 is photos/-c.png, and now photos/d.png is in that place",
        ),
        (["photos/-c.png"], r"its row 2 is photos/a b=1.png, and there is no such image any more"),
    ],
)
def test_a_table_of_other_options_or_images_is_refused(
    predict: Callable[..., SimpleNamespace], change: list[str], message: str
) -> None:
    predict("photos", "--output", "t.csv")
    before = Path("t.csv").read_bytes()
    ended = predict(*change, "--output", "t.csv")
    assert (ended.code, ended.out) == (1, "")
    assert message in ended.err
    assert Path("t.csv").read_bytes() == before
    assert predict(*change, "--output", "t.csv", "--overwrite").code == 0
    assert Path("t.csv").read_bytes() != before


def test_a_table_of_another_model_or_of_somebody_else_is_refused(predict: Callable[..., SimpleNamespace]) -> None:
    predict("photos", "--output", "t.csv")
    record = json.loads(Path("t.csv.json").read_text())
    Path("t.csv.json").write_text(json.dumps({**record, "sha256": "0", "model": "outputs/other"}))
    assert "t.csv was written by outputs/other." in predict("photos", "--output", "t.csv").err
    Path("mine.csv").write_text("path,label\n")
    ended = predict("photos", "--output", "mine.csv")
    assert "mine.csv exists, and was not written by this command" in ended.err
    assert Path("mine.csv").read_text() == "path,label\n"
