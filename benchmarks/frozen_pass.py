"""How long does the frozen pass over photographs take in torch, and how long in ONNX Runtime, its export included?

    python -m benchmarks.frozen_pass --root FOLDER [--images 400 2000] [--model efficientnet_lite0] [--rounds 3]
                                     [--engines eager onnxruntime] [--results FILE]

FOLDER has a folder of photographs for each class. Each pass is a process of its own with an empty cache; the engines
take turns. Timed is the pass over the training and validation images from nothing to features: decoding, exporting and
writing the cache are in it, finding copies and building the network are not. CPU seconds are user and system time of
the process and its workers. Appends to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
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

from benchmarks.processes import environment
from benchmarks.results import RESULTS, append_rows, machine, versions

SECTION = "The frozen pass"
ENGINES = ("eager", "onnxruntime")


def link_images(root: Path, count: int, folder: Path) -> int:
    """Links to as many images of each class: every fifth for validation, one more of each class as the test split."""
    classes = sorted(path for path in root.iterdir() if path.is_dir())
    linked = 0
    for of_class in classes:
        for number, image in enumerate(sorted(of_class.iterdir())[: count // len(classes) + 1]):
            split = "test" if number == 0 else "val" if number % 5 == 0 else "train"
            (target := folder / split / of_class.name).mkdir(parents=True, exist_ok=True)
            (target / image.name).symlink_to(image.absolute())
            linked += split != "test"
    return linked


def one_pass(overrides: Sequence[str], folder: Path) -> dict[str, float]:
    """In this process: seconds and CPU seconds of the pass alone."""
    import ftexp
    from ftexp.frozen_features import build_frozen, read_images, run_frozen
    from ftexp.machine.runtime import prepare_runtime
    from ftexp.models.catalogue import locate_weights

    config = ftexp.compose(*overrides)
    runtime = prepare_runtime(config.runtime)
    images = read_images(config, folder, runtime.device)
    network = build_frozen(config, locate_weights(config.model), images, runtime)
    before, started = os.times(), time.perf_counter()
    features = run_frozen(config, network, images, runtime)
    seconds, after = time.perf_counter() - started, os.times()
    return {"images": len(features.values), "seconds": seconds, "cpu": sum(after[:4]) - sum(before[:4])}


def measure(arguments: argparse.Namespace, count: int, engine: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        link_images(arguments.root, count, folder / "data")
        overrides = [
            *("data=imagefolder", f"data.root={folder}/data", f"model={arguments.model}", "tracking=none"),
            *(f"runtime.frozen_engine={engine}", f"runtime.cache_folder={folder}/cache", "runtime.device=cpu"),
            *("audit.features=false", "audit.on_leak=off"),
        ]
        command = [sys.executable, "-m", "benchmarks.frozen_pass", "--pass", *overrides]
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
    if sys.argv[1:2] == ["--pass"]:
        with tempfile.TemporaryDirectory() as here:
            print(json.dumps(one_pass(sys.argv[2:], Path(here))))
    else:
        main()
