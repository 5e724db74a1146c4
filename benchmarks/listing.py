"""How long does listing a million images take, how much memory, and how fast are single images read from their place?

    python -m benchmarks.listing [--images 1000000] [--reads 12000] [--image-kib 50] [--rounds 3]

Lists simulated shards (100 tars, in which the images are holes) and a Parquet file with tiny images, each in a new
process; then reads images of that size at random from files, a tar and Parquet files with 20 and 200 images in a row
group; together they are larger than what is kept of Parquet in memory. Appends two tables to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import psutil
import pyarrow
import pyarrow.parquet

from benchmarks.results import append_rows, machine, versions
from ftexp.config import DataConfig, ManifestConfig, WebDatasetConfig
from ftexp.data.samples import Sample
from ftexp.data.sources import manifest, parquet_table, webdataset  # noqa: F401  # so that importing is not measured
from ftexp.data.sources.registry import read_samples
from ftexp.report.tables import format_table

SHARDS, OF_ONE_IMAGE = 100, 3 * tarfile.BLOCKSIZE


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--reads", type=int, default=12000)
    parser.add_argument("--image-kib", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--list", nargs=2, help=argparse.SUPPRESS)  # kind and folder: in a process of its own
    arguments = parser.parse_args(given)
    if arguments.list:
        print(json.dumps(list_once(config_of(arguments.list[0], Path(arguments.list[1])))))
        return
    with tempfile.TemporaryDirectory() as folder:
        listed = listings(Path(folder), arguments.images, arguments.rounds)
    with tempfile.TemporaryDirectory() as folder:
        read = readings(Path(folder), arguments.reads, arguments.image_kib, arguments.rounds)
    for section, rows in (("Listing images", listed), ("Reading single images at random", read)):
        if rows:
            append_rows(section, rows)
            print(format_table(rows))


def config_of(kind: str, folder: Path) -> DataConfig:
    if kind == "parquet":
        return ManifestConfig(source="manifest", file=str(folder / "t.parquet"), path_column="image")
    return WebDatasetConfig(source="webdataset", shards=f"{folder}/part-*.tar", index=str(folder / "index"))


def list_once(config: DataConfig) -> dict[str, float]:
    process = psutil.Process()
    before, started, cpu = process.memory_info().rss, time.perf_counter(), time.process_time()
    samples = read_samples(config)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return {
        "seconds": seconds,
        "cpu": cpu_seconds,
        "bytes": (process.memory_info().rss - before) / len(samples),
        "count": len(samples),
    }


def listings(folder: Path, count: int, rounds: int) -> list[dict[str, object]]:
    if not count:
        return []
    write_shards(folder, count)
    write_table(folder / "t.parquet", [b"\xff\xd8" + bytes(50)] * count, 100)
    rows: list[dict[str, object]] = []
    for name, kind in (("tars, the first time", "new"), ("tars, from data.index", "kept"), ("Parquet", "parquet")):
        results = []
        for _ in range(rounds):
            if kind == "new":
                for file in (folder / "index").glob("*"):
                    file.unlink()
            command = [sys.executable, "-m", "benchmarks.listing", "--list", kind, str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
        rows.append(
            {
                "date": date.today().isoformat(),
                "images": f"{count:,} in {name}",
                "seconds": spread([one["seconds"] for one in results], 1),
                "CPU seconds": spread([one["cpu"] for one in results], 1),
                "bytes an image": spread([one["bytes"] for one in results], 0),
                "n": rounds,
                "machine": machine(),
                "versions": versions(),
            }
        )
    return rows


def write_shards(folder: Path, count: int) -> None:
    """Tars whose members are as those of WebDataset, with a label of 100 behind each image; the images are zeros."""
    image, label = tarfile.TarInfo("000000000.jpg"), tarfile.TarInfo("000000000.cls")
    image.size, label.size = OF_ONE_IMAGE, 8
    for shard in range(SHARDS):
        path = folder / f"part-{shard:03d}.tar"
        with path.open("wb") as file:
            for number in range(shard * count // SHARDS, (shard + 1) * count // SHARDS):
                image.name, label.name = f"{number:09d}.jpg", f"{number:09d}.cls"
                file.write(image.tobuf(tarfile.USTAR_FORMAT))
                file.seek(OF_ONE_IMAGE, os.SEEK_CUR)
                content = f"class{number % 100:03d}".encode().ljust(tarfile.BLOCKSIZE, b"\0")
                file.write(label.tobuf(tarfile.USTAR_FORMAT) + content)
            file.write(bytes(2 * tarfile.BLOCKSIZE))
        os.utime(path, (10**9, 10**9))  # so that its list is kept at once


def write_table(path: Path, images: Sequence[bytes], in_a_group: int) -> None:
    labels = [f"class{number % 100:03d}" for number in range(len(images))]
    pyarrow.parquet.write_table(pyarrow.table({"image": images, "label": labels}), path, row_group_size=in_a_group)


def readings(folder: Path, count: int, kib: int, rounds: int) -> list[dict[str, object]]:
    if not count:
        return []
    rng = np.random.default_rng(0)
    images = [rng.bytes(kib * 1024) for _ in range(count)]
    (folder / "files").mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for number, content in enumerate(images):
            (folder / "files" / f"{number}.jpg").write_bytes(content)
            for name, of_member in ((f"{number}.jpg", content), (f"{number}.cls", b"a")):
                info = tarfile.TarInfo(name)
                info.size = len(of_member)
                tar.addfile(info, io.BytesIO(of_member))
    files = [Sample(str(folder / "files" / f"{number}.jpg"), "a") for number in range(count)]
    tars = read_samples(WebDatasetConfig(source="webdataset", shards=str(folder / "a.tar"), index=None))
    places: dict[str, Sequence[Sample]] = {"files": files, "a tar": tars}
    for in_a_group in (20, 200):
        write_table(folder / f"{in_a_group}.parquet", images, in_a_group)
        table = ManifestConfig(source="manifest", file=str(folder / f"{in_a_group}.parquet"), path_column="image")
        places[f"Parquet, {in_a_group} in a row group"] = read_samples(table)
    del images
    speeds: dict[str, list[float]] = {name: [] for name in places}
    for number in range(rounds):
        for name, samples in places.items():
            order = random.Random(number).choices(samples, k=min(count, 1000))
            started = time.perf_counter()
            for sample in order:
                sample.place.read() if sample.place is not None else Path(sample.path).read_bytes()
            speeds[name].append(len(order) / (time.perf_counter() - started))
    return [
        {
            "date": date.today().isoformat(),
            "images": f"{count:,} of {kib} KiB in {name}",
            "images per second, one thread": spread(speed, 0),
            "n": rounds,
            "machine": machine(),
            "versions": versions(),
        }
        for name, speed in speeds.items()
    ]


def spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
