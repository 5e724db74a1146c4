"""How many images per second does full fine-tuning from JPEG files reach, compared with the training step alone?

    python -m benchmarks.throughput [--models resnet50 efficientnet_b0 vit_b_16] [--images 20000] [--batch-size 256]
                                    [--epochs 4] [--rounds 3] [--python PYTHON] [--sides step ftexp chapter ...]
                                    [--device cuda] [--log FILE] [--side 375] [--files FOLDER]

Each side is a process, and they take turns: ``step`` is a plain training step, compiled, on one synthetic batch that is
on the device already (``benchmarks.step``, whose row tells how ftexp's step compares with it); the others train for so
many epochs on the same files, ``ftexp`` compiled and ``ftexp_auto`` as ``runtime.compile=auto`` decides. Compared are
images per second of training from the second epoch on, as a share of the step's, and the time of the first epoch, in
which ftexp decodes the files for all epochs to come, and compiles. fastai, Lightning, timm's recipe and the Trainer run
in bf16, the hand-written loop (``chapter``) as it is, all with as many workers as there are cores; networks are
torchvision's, without pretrained weights. The files hold smooth noise of 500 x 375 pixels, or of ``--side``, and are
written for each call or once into ``--files``.

Without a CUDA device, the table says so; ``--device cpu`` only tests the benchmark. Appends to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path

import torch

from benchmarks.image_folders import ONE_FOR_VAL, with_test_split, write_photographs
from benchmarks.processes import Log, Outcome, Reached, interpreter, last_line, read_run, run_process, take_turns
from benchmarks.results import append_rows, hardware, machine, versions
from benchmarks.side_by_side import OTHERS, other_command
from ftexp.report.tables import format_table

SECTION = "Full fine-tuning from JPEG files, on a GPU"
# runtime.compile of ftexp's sides.
COMPILED = {"ftexp": "true", "ftexp_auto": "auto"}
SIDES = ("step", *COMPILED, *OTHERS)


def ftexp_command(arguments: argparse.Namespace, model: str, seed: int, folder: Path, compiled: str) -> list[str]:
    return [
        *(sys.executable, "-m", "ftexp"),
        *("data=imagefolder", f"data.root={with_test_split(arguments.root, folder)}"),
        *(f"model={model}", "model.weights=null", f"model.image_size={arguments.image_size}"),
        *("stage=full", f"stage.epochs={arguments.epochs}", f"train.batch_size={arguments.batch_size}"),
        *(f"runtime.seed={seed}", f"runtime.device={arguments.device}", f"runtime.cache_folder={folder}/cache"),
        *(f"runtime.cache_gib={arguments.cache_gib}", f"runtime.compile={compiled}"),
        *(f"hydra.run.dir={folder}/run", "tracking=none", "audit.on_leak=off"),
    ]


def step_command(arguments: argparse.Namespace, model: str) -> list[str]:
    sizes = ["--image-size", str(arguments.image_size), "--batch-size", str(arguments.batch_size)]
    times = ["--steps", str(arguments.steps), "--device", arguments.device]
    rows = ["--results", str(arguments.results.resolve())] if arguments.results else []
    return [sys.executable, "-m", "benchmarks.step", "--models", model, *sizes, *times, *rows]


def measure(arguments: argparse.Namespace, model: str, side: str, seed: int) -> Outcome:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if side == "step":
            return run_process(step_command(arguments, model), folder, partial(read_step, arguments))
        if side in COMPILED:
            compiled = COMPILED[side] if arguments.device == "cuda" else "auto"
            command = ftexp_command(arguments, model, seed, folder, compiled)
            return run_process(command, folder, lambda _: read_run(folder / "run"))
        more = ["--model", model, "--batch-size", str(arguments.batch_size)]
        return run_process([*other_command(side, arguments, seed), *more], folder, last_line)


def read_step(arguments: argparse.Namespace, printed: str) -> Reached:
    milliseconds = json.loads(printed.strip().splitlines()[-1])["bare ms"]
    return Reached(images_per_second=(1e3 * arguments.batch_size / float(milliseconds),))


def compare(arguments: argparse.Namespace, model: str) -> list[dict[str, object]]:
    """Measure all in turn, round after round; a row each, with the share of the step's rate in the same round."""
    names = ("device", "images", "side", "image_size", "batch_size", "steps", "epochs", "workers", "cache_gib")
    settings = {name: getattr(arguments, name) for name in names}
    log = Log(arguments.log)

    def measured(side: str, seed: int) -> Outcome:
        key = f"{side} {model}, {settings}, seed {seed}"
        return log.once(key, partial(measure, arguments, model, side, seed))

    outcomes = take_turns(
        arguments.sides, arguments.rounds, measured, lambda o: f"{steady(o):8.1f} images/s of {model}"
    )
    return [row(model, side, outcomes, arguments) for side in outcomes]


def steady(outcome: Outcome) -> float:
    """Images per second: the median without the first epoch, if there are several."""
    rates = outcome.images_per_second
    return statistics.median(rates[1:] or rates)


def row(model: str, side: str, outcomes: dict[str, list[Outcome]], arguments: argparse.Namespace) -> dict[str, object]:
    rates = [steady(outcome) for outcome in outcomes[side]]
    shares = [rate / steady(first) for rate, first in zip(rates, outcomes[arguments.sides[0]], strict=True)]
    num_train = arguments.images - -(-arguments.images // ONE_FOR_VAL)
    first = [num_train / outcome.images_per_second[0] for outcome in outcomes[side]]
    return {
        **columns(model, side, arguments),
        "images/s": f"{statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})",
        f"of the {arguments.sides[0]}'s": f"{statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})",
        "first epoch, s": "-" if side == "step" else f"{statistics.median(first):.1f}",
        "n": len(rates),
        "device": hardware(arguments.device),
        "machine": machine(),
        "versions": versions(),
    }


def not_measured(model: str, arguments: argparse.Namespace) -> dict[str, object]:
    words = dict.fromkeys(("images/s", f"of the {arguments.sides[0]}'s", "first epoch, s"), "not measured")
    return {
        **columns(model, "all", arguments),
        **words,
        "n": 0,
        "device": "no GPU was at hand",
        "machine": machine(),
        "versions": versions(),
    }


def columns(model: str, side: str, arguments: argparse.Namespace) -> dict[str, object]:
    files = f"{arguments.images} at {arguments.image_size} px"
    return {"date": date.today().isoformat(), "model": model, "images": files, "side": side}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["resnet50", "efficientnet_b0", "vit_b_16"])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=375, help="the shorter side of the files, in pixels")
    parser.add_argument("--files", type=Path, help="the folder in which the files are kept for further calls")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=50, help="of the bare step, in each of five turns")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache-gib", type=float, default=16.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--python", type=interpreter, default=Path(sys.executable), help="of the other frameworks")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    arguments.stage = "full"
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as images:
        arguments.root = arguments.files or Path(images)
        if arguments.device == "cuda" and not torch.cuda.is_available():
            rows = [not_measured(model, arguments) for model in arguments.models]
        else:
            write_photographs(arguments.root, arguments.images, arguments.side)
            rows = [row for model in arguments.models for row in compare(arguments, model)]
    print(format_table(rows))
    append_rows(SECTION, rows, *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
