"""How long does the frozen pass over photographs take in torch, and how long in ONNX Runtime, its export included?

    python -m benchmarks.frozen_pass --root FOLDER [--images 400 2000] [--model efficientnet_lite0] [--rounds 3]
                                     [--engines eager onnxruntime bare] [--results FILE]

FOLDER has a folder of photographs for each class; if they are fewer than asked for, they come again under other names.
Each pass is a process of its own with an empty cache; the engines take turns. Timed is the pass over the training and
validation images from nothing to features: decoding, exporting and writing the cache are in it, finding copies and
building the network are not. ``bare`` is ONNX Runtime in a loop of a few lines over a DataLoader, with the same images,
network and threads, which keeps nothing. CPU seconds are user and system time of the process and its workers. Appends
to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.processes import environment
from benchmarks.results import RESULTS, append_rows, machine, versions

SECTION = "The frozen pass"
ENGINES = ("eager", "onnxruntime", "bare")
BATCH_SIZE = 32


def link_images(root: Path, count: int, folder: Path) -> int:
    """Links to as many images of each class: every fifth for validation, one more of each class as the test split."""
    classes = sorted(path for path in root.iterdir() if path.is_dir())
    linked = 0
    for of_class in classes:
        images = sorted(of_class.iterdir())
        for number in range(count // len(classes) + 1):
            image = images[number % len(images)]
            split = "test" if number == 0 else "val" if number % 5 == 0 else "train"
            (target := folder / split / of_class.name).mkdir(parents=True, exist_ok=True)
            (target / f"{number // len(images)}_{image.name}").symlink_to(image.absolute())
            linked += split != "test"
    return linked


class Photographs:
    """The images of files, ready to be normalised."""

    def __init__(self, paths: Sequence[str], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Any:
        from PIL import Image

        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB"))


def bare_features(network: Any, paths: Sequence[str], workers: int) -> Any:
    """The features of photographs by a loop as one writes it by hand: export, DataLoader, ONNX Runtime."""
    import numpy as np
    import onnxruntime
    import torch
    from torch.utils.data import DataLoader

    from ftexp.data.augment.transforms import Normalizer, eval_transform

    size, file = network.preprocessing.image_size, io.BytesIO()
    example, axes = torch.zeros(2, 3, size, size), {"images": {0: "batch"}, "features": {0: "batch"}}
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["features"], "dynamic_axes": axes}
    torch.onnx.export(network.module, (example,), file, dynamo=False, **names)  # type: ignore[arg-type]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    photographs = Photographs(paths, eval_transform(network.preprocessing))
    normalized = Normalizer(network.preprocessing)
    batches: Any = DataLoader(photographs, BATCH_SIZE, num_workers=workers)  # type: ignore[arg-type]
    return np.concatenate([session.run(None, {"images": normalized(images).numpy()})[0] for images in batches])


def one_pass(overrides: Sequence[str], folder: Path, *, bare: bool = False) -> dict[str, float]:
    """In this process: seconds and CPU seconds of the pass alone."""
    import ftexp
    from ftexp.frozen_features import build_frozen, read_images, run_frozen
    from ftexp.machine.cores import available_cores
    from ftexp.machine.runtime import prepare_runtime
    from ftexp.models.catalogue import locate_weights

    config = ftexp.compose(*overrides)
    runtime = prepare_runtime(config.runtime)
    images = read_images(config, folder, runtime.device)
    network = build_frozen(config, locate_weights(config.model), images, runtime)
    paths = [sample.path for sample in (*images.splits.train, *images.splits.val)]
    before, started = os.times(), time.perf_counter()
    if bare:
        features = bare_features(network, paths, available_cores())
    else:
        features = run_frozen(config, network, images, runtime).values
    seconds, after = time.perf_counter() - started, os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    # All sides have the same mean, if they compute the same.
    return {"images": len(features), "seconds": seconds, "cpu": cpu, "mean feature": float(features.mean())}


def measure(arguments: argparse.Namespace, count: int, engine: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        link_images(arguments.root, count, folder / "data")
        of_ftexp = "auto" if engine == "bare" else engine
        overrides = [
            *("data=imagefolder", f"data.root={folder}/data", f"model={arguments.model}", "tracking=none"),
            *(f"runtime.frozen_engine={of_ftexp}", f"runtime.cache_folder={folder}/cache", "runtime.device=cpu"),
            *("audit.features=false", "audit.on_leak=off"),
        ]
        how = "--bare" if engine == "bare" else "--pass"
        command = [sys.executable, "-m", "benchmarks.frozen_pass", how, *overrides]
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-2000:])
        measured: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        return measured


def main(argv: Sequence[str] | None = None) -> list[dict[str, object]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", type=int, nargs="+", default=[400, 2000])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    rows: list[dict[str, object]] = []
    for count in arguments.images:
        measured: dict[str, list[dict[str, float]]] = {engine: [] for engine in arguments.engines}
        for _ in range(arguments.rounds):
            for engine in arguments.engines:
                measured[engine].append(measure(arguments, count, engine))
                print(count, engine, measured[engine][-1], flush=True)
        for engine, passes in measured.items():
            rows.append(
                {
                    "date": date.today().isoformat(),
                    "model": arguments.model,
                    "images": int(passes[0]["images"]),
                    "engine": engine,
                    **{
                        name: spread([one[key] for one in passes]) for name, key in (("s", "seconds"), ("CPU s", "cpu"))
                    },
                    "n": len(passes),
                    "machine": machine(),
                    "versions": f"{versions()}, onnxruntime {version('onnxruntime')}",
                }
            )
    append_rows(SECTION, rows, arguments.results)
    return rows


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    if sys.argv[1:2] in (["--pass"], ["--bare"]):
        with tempfile.TemporaryDirectory() as here:
            print(json.dumps(one_pass(sys.argv[2:], Path(here), bare=sys.argv[1] == "--bare")))
    else:
        main()
