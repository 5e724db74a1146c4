"""Whole runs on images that are no files of their own: equal to the same run on files, resumed, evaluated."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
from pathlib import Path

import fsspec
import pytest
from conftest import CommandLine
from shards import COLOURS, png, shard, write_shards

from ftexp.evaluate import main as evaluate

TINY = (
    *("model=timm", "model.name=test_efficientnet", "model.weights=null", "data.image_size=32", "stage=head"),
    *("stage.epochs=2", "head.solver=sgd", "runtime.device=cpu", "tracking=none", "audit.features=false"),
    *("audit.labels=false", "hydra.run.dir=run", "train.keep_last=true", "runtime.workers=0"),
)


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def losses(folder: Path) -> list[str]:
    return [row["val_loss"] for row in rows(folder, "metrics.csv")]


@pytest.mark.slow
def test_a_run_on_shards_is_the_run_on_files(tmp_path: Path, command_line: CommandLine) -> None:
    write_shards(tmp_path / "shards", count=1, images=30)
    with tarfile.open(tmp_path / "shards" / "part-000.tar") as tar:
        tar.extractall(tmp_path / "files", filter="data")
    listed = "".join(f"{n:04d}.png,{list(COLOURS)[n % 3]}\n" for n in range(30))
    (tmp_path / "files" / "table.csv").write_text(f"path,label\n{listed}")
    done = command_line(*TINY, "data=webdataset", "data.shards=shards/*.tar", "hydra.run.dir=a")
    assert done.returncode == 0, done.stderr
    assert "webdataset: 30 images of 3 classes" in done.stdout + done.stderr
    done = command_line(*TINY, "data=manifest", "data.file=files/table.csv", "hydra.run.dir=b")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    digests = [{Path(row["path"]).name: row["digest"] for row in rows(tmp_path / run, "digests.csv")} for run in "ab"]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_a_run_on_shards_in_memory_by_worker_processes_is_evaluated(tmp_path: Path, command_line: CommandLine) -> None:
    for number in range(2):
        fsspec.filesystem("memory").pipe(f"/runs/part-{number}.tar", shard(15 * number, 15))
    settings = ("data=webdataset", "data.shards=memory://runs/part-{0..1}.tar")
    done = command_line(*TINY, *settings, "runtime.workers=1", "augment=light", "stage=full", "runtime.cache=off")
    assert done.returncode == 0, done.stderr
    assert "memory://runs/part-0.tar/0000.png" in {row["path"] for row in rows(tmp_path / "run", "splits.csv")}
    assert "data:image/jpeg;base64" in (tmp_path / "run" / "report.html").read_text()
    done = command_line("run", entry=evaluate)
    assert done.returncode == 0, done.stderr
    done = command_line("run", "--data", *settings, entry=evaluate)
    assert done.returncode == 0, done.stderr


def test_a_run_whose_shard_changed_is_not_resumed(tmp_path: Path, command_line: CommandLine) -> None:
    file = write_shards(tmp_path / "shards", count=1, images=30) / "part-000.tar"
    os.utime(file, (10**9, 10**9))
    assert command_line(*TINY, "data=webdataset", "data.shards=shards").returncode == 0
    result = tmp_path / "run" / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"status": "interrupted"}))
    whole = file.read_bytes()
    members = {f"{n:04d}.cls": list(COLOURS)[n % 3].encode() for n in range(30)}
    members |= {f"{n:04d}.png": png(list(COLOURS)[n % 3], n + 100 * (n == 7)) for n in range(30)}
    with tarfile.open(file, "w") as tar:
        for name in sorted(members):
            info = tarfile.TarInfo(name)
            info.size = len(members[name])
            tar.addfile(info, io.BytesIO(members[name]))
    refused = command_line("resume=run")
    assert refused.returncode == 1
    assert "images are not those the run began with" in refused.stderr
    assert "shards/part-000.tar/0007.png" in refused.stderr
    file.write_bytes(whole)  # the same content, with other times
    done = command_line("resume=run")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shards", ["memory://none/a.tar", "nowhere/{0..2}.tar"])
def test_shards_that_are_not_there_end_in_one_message(shards: str, command_line: CommandLine) -> None:
    refused = command_line(*TINY, "data=webdataset", f"data.shards={shards}")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused.stderr
    assert "Traceback" not in refused.stderr
