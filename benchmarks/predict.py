"""How fast is prediction beside the network alone, and does its memory grow with the number of images?

    python -m benchmarks.predict [--root FOLDER] [--model efficientnet_lite0] [--batch-size 32] [--rounds 5]
                                 [--counts 1000 20000] [--image-size 64] [--exported FILE]

Speed, by turns in one process, over all images below FOLDER (without one, photographs of noise are made):
``forward``, the bare network on batches that are decoded, normalised and in memory; ``decode``, files to prepared
images in as many threads as there are cores, nothing else; ``predict``, ``Classifier.stream``, files to answers.
Prediction does both on the same cores, so that no faster than 1 / (1 / forward + 1 / decode) is possible where both
keep all cores busy: that is the bound. With ``--exported``, the same prediction by an exported file.

Memory, a process each: ``python -m ftexp.predict`` on so many small JPEG files, with a table. Appends two tables to
benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import psutil
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

import ftexp
from benchmarks.image_folders import write_photographs
from benchmarks.memory import write_images
from benchmarks.processes import environment
from benchmarks.results import append_rows, machine, versions
from ftexp.config import parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.data.augment.transforms import Normalizer
from ftexp.inference.classifier import Classifier
from ftexp.inference.given import GivenImage, given_images
from ftexp.machine.cores import available_cores
from ftexp.models.catalogue import build_network, locate_weights
from ftexp.report.tables import format_table
from ftexp.training.checkpoints.checkpoint import checkpoint_content, write_checkpoint

SPEED, MEMORY = "Prediction beside the network alone", "Peak memory of prediction by the number of images"
FORWARD, DECODE, PREDICT = "forward", "decode", "predict"
PHOTOGRAPHS = 400


def write_run(folder: Path, model: str, image_size: int | None = None) -> Path:
    """The folder of a finished run whose network is as it was downloaded, for two classes."""
    register_schema()
    with initialize_config_dir(str(conf_dir())):
        config = parse(compose("config", overrides=[f"model={model}"]))
    network = build_network(config.model, locate_weights(config.model), 2, image_size)
    (folder / "checkpoints").mkdir(parents=True)
    write_checkpoint(folder / "checkpoints" / "best.pt", checkpoint_content(network, config, {"a": 0, "b": 1}))
    (folder / "run.json").write_text("{}")
    (folder / "result.json").write_text(json.dumps({"status": "finished"}))
    return folder


def prepared(classifier: Classifier, images: Sequence[GivenImage], batch_size: int) -> list[Tensor]:
    """All images as batches that the network takes: float32 [B, 3, H, W], normalised."""
    normalise = Normalizer(classifier.preprocessing)
    batches = []
    for start in range(0, len(images), batch_size):
        decoded = [classifier._prepare(one) for one in images[start : start + batch_size]]
        batch = torch.stack([image for image in decoded if isinstance(image, Tensor)])
        batches.append(normalise(batch.to(memory_format=torch.channels_last)))
    return batches


def sides(
    classifier: Classifier, exported: Classifier | None, root: Path, batch_size: int
) -> dict[str, Callable[[], int]]:
    """What is measured; each returns how many images it was."""
    images = list(given_images(root))
    batches = prepared(classifier, images, batch_size)

    @torch.inference_mode()
    def forward() -> int:
        return sum(len(classifier.module(batch).cpu()) for batch in batches)

    def decode() -> int:
        with ThreadPoolExecutor(available_cores()) as pool:
            return sum(isinstance(one, Tensor) for one in pool.map(classifier._prepare, images))

    def predict(by: Classifier) -> int:
        return sum(one.error is None for one in by.stream(images, batch_size=batch_size))

    found: dict[str, Callable[[], int]] = {FORWARD: forward, DECODE: decode, PREDICT: lambda: predict(classifier)}
    return found | ({f"{PREDICT}, exported": lambda: predict(exported)} if exported else {})


def measure_speed(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Images per second of each side, round by round, and their shares of the forward pass and of the bound."""
    with folder_or_photographs(arguments.root) as root, tempfile.TemporaryDirectory() as temporary:
        classifier = ftexp.load(write_run(Path(temporary) / "run", arguments.model), device="cpu")
        exported = ftexp.load(arguments.exported) if arguments.exported else None
        calls = sides(classifier, exported, root, arguments.batch_size)
        for call in calls.values():  # once for what is made at the first call
            num_images = call()
        rates: dict[str, list[float]] = {side: [] for side in calls}
        for number in range(arguments.rounds):
            for side, call in calls.items():
                started = time.perf_counter()
                rates[side].append(call() / (time.perf_counter() - started))
                print(f"round {number + 1}  {side:18} {rates[side][-1]:7.1f} images/s", flush=True)
    rates["bound"] = [1 / (1 / f + 1 / d) for f, d in zip(rates[FORWARD], rates[DECODE], strict=True)]
    return [
        {
            "date": date.today().isoformat(),
            "data": f"{root.name}, {num_images} images",
            "model": arguments.model,
            "batch": arguments.batch_size,
            "side": side,
            "images/s": spread(rates[side], ".1f"),
            "of forward": spread([a / b for a, b in zip(rates[side], rates[FORWARD], strict=True)], ".2f"),
            "of the bound": spread([a / b for a, b in zip(rates[side], rates["bound"], strict=True)], ".2f"),
            "n": arguments.rounds,
            "machine": machine(),
            "versions": versions(),
        }
        for side in rates
    ]


def measure_memory(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Largest resident memory of the command, by the number of images."""
    rows: list[dict[str, object]] = []
    first: float | None = None
    for count in arguments.counts:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_images(folder / "images", count, arguments.image_size)
            run = write_run(folder / "run", arguments.model, arguments.image_size)
            command = [sys.executable, "-m", "ftexp.predict", str(run), str(folder / "images")]
            peak_mib, seconds = watch([*command, "--output", "table.csv"], folder)
            with (folder / "table.csv").open() as table:
                assert sum(1 for _ in table) == count + 1
        first = first or peak_mib
        rows.append(
            {
                "date": date.today().isoformat(),
                "model": f"{arguments.model} at {arguments.image_size} px",
                "images": count,
                "peak MiB": f"{peak_mib:.0f}",
                "ratio": f"{peak_mib / first:.2f}",
                "seconds": f"{seconds:.0f}",
                "machine": machine(),
                "versions": versions(),
            }
        )
        print(format_table(rows[-1:]), flush=True)
    return rows


def watch(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run a command; returns its largest resident memory in MiB, sampled ten times a second, and its seconds.

    The system's own figure would not do: it counts what this process held when it started the other.
    """
    started, peak = time.perf_counter(), 0
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, env=environment()) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):
                peak = max(peak, watched.memory_info().rss)
            time.sleep(0.1)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return peak / 2**20, time.perf_counter() - started


def spread(values: Sequence[float], form: str) -> str:
    """The median, and the smallest and largest."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


@contextmanager
def folder_or_photographs(root: Path | None) -> Iterator[Path]:
    """The folder that was given, or for as long as the ``with`` lasts, one of noise."""
    if root is not None:
        yield root.resolve()
        return
    with tempfile.TemporaryDirectory() as temporary:
        write_photographs(Path(temporary) / "noise", PHOTOGRAPHS)
        yield Path(temporary) / "noise"


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--exported", type=Path)
    parser.add_argument("--counts", nargs="*", type=int, default=[1000, 20000])
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    results = [arguments.results] if arguments.results else []
    if arguments.rounds:
        rows = measure_speed(arguments)
        print(format_table(rows), flush=True)
        append_rows(SPEED, rows, *results)
    if arguments.counts:
        append_rows(MEMORY, measure_memory(arguments), *results)


if __name__ == "__main__":
    main()
