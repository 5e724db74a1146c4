"""The parts of ``benchmarks.gpu``: the commands of each, and what it needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.processes import PROJECT
from benchmarks.results import read_rows

# Packages of ftexp that no part imports, because all of them run with tracking=none.
NOT_IMPORTED = {"mlflow"}
# Modules that a framework's program imports -> the package; see benchmarks/frameworks.
OF_SIDE = {
    "chapter": (),
    "fastai": ("fastai",),
    "lightning": ("lightning", "finetuning_scheduler"),
    "timm": (),
    "transformers": ("transformers", "accelerate"),
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        device: ``cuda`` or ``cpu``.
        models: torchvision's networks that are trained from JPEG files; the first one beside all other frameworks.
        small: timm's networks whose first steps are timed.
        images: JPEG files.
        side: their shorter side, in pixels.
        image_size: the side of the network's input.
        batch_size: images per step.
        epochs: of full fine-tuning.
        steps: per timing.
        per_class: real images of each class for the accuracy.
    """

    device: str
    models: tuple[str, ...]
    small: tuple[str, ...]
    images: int
    side: int
    image_size: int
    batch_size: int
    epochs: int
    steps: int
    per_class: int


FULL = Sizes(
    device="cuda",
    models=("resnet50", "efficientnet_b0", "vit_b_16", "convnext_tiny"),
    small=("tf_efficientnet_lite0", "resnet50"),
    images=20_000,
    side=256,
    image_size=224,
    batch_size=256,
    epochs=3,
    steps=20,
    per_class=400,
)
DRY = Sizes(
    device="cpu",
    models=("mobilenet_v3_small",),
    small=("resnet10t",),
    images=48,
    side=40,
    image_size=32,
    batch_size=8,
    epochs=2,
    steps=1,
    per_class=8,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how the parts run.

    Attributes:
        out: the folder of the results.
        data: a folder of images for each class, or None.
        python: the interpreter of the other frameworks.
        sizes: how much is measured.
    """

    out: Path
    data: Path | None
    python: Path
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the measurement.

    Attributes:
        what: what it measures, for ``--list``.
        commands: the commands; each appends its rows to the file named ``rows``.
        modules: what this interpreter must have; a part that lacks one is left out.
    """

    what: str
    commands: Callable[[Setting, Path], list[list[str]]]
    modules: tuple[str, ...] = ()


def lacking(part: Part, setting: Setting) -> list[str]:
    """The packages of ftexp and the modules of the part that this machine lacks."""
    return [*_packages_missing(), *_missing(Path(sys.executable), part.modules)]


def _packages_missing() -> list[str]:
    needed = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in needed} - NOT_IMPORTED
    return sorted(name for name in names if not any(metadata.distributions(name=name)))


def sides_here(setting: Setting) -> dict[str, list[str]]:
    """The other frameworks, and for each the modules that their interpreter lacks."""
    return {side: _missing(setting.python, needed) for side, needed in OF_SIDE.items()}


def _missing(python: Path, modules: tuple[str, ...]) -> list[str]:
    if not modules:
        return []
    found = "import importlib.util, sys; print(*[m for m in sys.argv[1:] if importlib.util.find_spec(m) is None])"
    ran = subprocess.run([str(python), "-c", found, *modules], capture_output=True, text=True, check=True)
    return ran.stdout.split()


def _command(module: str, *arguments: str, **options: object) -> list[str]:
    """A call of a benchmark; an option is a value or a sequence of values, and None leaves it out."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    for name, value in options.items():
        values = [] if value is None else value if isinstance(value, (list, tuple)) else [value]
        command += [f"--{name.replace('_', '-')}", *map(str, values)] if values else []
    return command


def _on_cuda(setting: Setting) -> bool:
    return setting.sizes.device == "cuda"


def _tests(setting: Setting, rows: Path) -> list[list[str]]:
    return [_command("gpu.run_tests", device=setting.sizes.device, results=rows)]


def _first_step(setting: Setting, rows: Path) -> list[list[str]]:
    """Compiling takes most of the time, so only what the defaults compute is compiled."""
    sizes = setting.sizes
    given = {"batch_size": min(32, sizes.batch_size), "image_size": sizes.image_size, "steps": sizes.steps}
    precision, *others = ("bf16", "fp32") if _on_cuda(setting) else ("fp32",)
    cases: list[tuple[str, str, list[str]]] = [(model, precision, []) for model in sizes.small]
    cases += [(sizes.small[0], precision, ["--channels-first", "--eager"])]
    cases += [(sizes.small[0], other, ["--eager"]) for other in others]
    return [
        _command(
            "gpu.first_step",
            *options,
            model=model,
            precision=precision,
            **given,
            device=sizes.device,
            results=rows,
        )
        for model, precision, options in cases
    ]


def _throughput(number: int) -> Callable[[Setting, Path], list[list[str]]]:
    def commands(setting: Setting, rows: Path) -> list[list[str]]:
        sizes = setting.sizes
        if number >= len(sizes.models):
            return []
        command = _command(
            "throughput",
            models=sizes.models[number],
            images=sizes.images,
            side=sizes.side,
            files=setting.out / f"photographs-{sizes.images}-{sizes.side}",
            image_size=sizes.image_size,
            batch_size=sizes.batch_size,
            epochs=sizes.epochs,
            steps=sizes.steps,
            rounds=1,
            sides=["step", "ftexp", *(["ftexp_auto", *_trained_in_bf16(setting)] if number == 0 else ())],
            python=setting.python,
            device=sizes.device,
            log=setting.out / "throughput.jsonl",
            results=rows,
        )
        return [command]

    return commands


def _others(setting: Setting) -> list[str]:
    """The other frameworks that are installed; one of them in a dry run."""
    here = [side for side, missing in sides_here(setting).items() if not missing]
    return here if _on_cuda(setting) else here[:1]


def _trained_in_bf16(setting: Setting) -> list[str]:
    """The other frameworks but the hand-written loop, which has no mixed precision: it would take minutes."""
    others = _others(setting)
    return [side for side in others if side != "chapter"] if _on_cuda(setting) else others


def _cached(setting: Setting, rows: Path) -> list[list[str]]:
    sizes = setting.sizes
    given = {"image_size": sizes.image_size, "epochs": 20 if _on_cuda(setting) else 1, "rounds": 1}
    return [
        _command(
            "side_by_side",
            table,
            **given,
            sides=["ftexp", *(_others(setting) if _on_cuda(setting) else ())],
            python=setting.python,
            workers=os.cpu_count() if _on_cuda(setting) else 1,
            device=sizes.device,
            log=setting.out / f"{table}.jsonl",
            results=rows,
        )
        for table in ("head", "partial")
    ]


def _precision(setting: Setting, rows: Path) -> list[list[str]]:
    sizes = setting.sizes
    given = {"per_class": sizes.per_class, "image_size": sizes.image_size, "epochs": 10 if _on_cuda(setting) else 1}
    log = setting.out / "precision.jsonl"
    return [_command("gpu.precision", root=setting.data, **given, device=sizes.device, log=log, results=rows)]


def _decode(setting: Setting, rows: Path) -> list[list[str]]:
    sizes = setting.sizes
    given = {"images": min(sizes.images, 2000), "device": sizes.device, "results": rows}
    return [_command("gpu.decode", data=data, **given) for data in dict.fromkeys((None, setting.data))]


def _profile(setting: Setting, rows: Path) -> list[list[str]]:
    sizes, model = setting.sizes, _slowest(setting)
    given = {"batch_size": sizes.batch_size, "image_size": sizes.image_size, "device": sizes.device}
    return [_command("gpu.profile", model=model, **given, trace=setting.out / f"{model}.json.gz", results=rows)]


def _slowest(setting: Setting) -> str:
    """The network whose compiled run stays farthest behind its step; the first one where none was measured."""
    shares: dict[str, float] = {}
    for file in setting.out.glob("throughput*.md"):
        for row in (row for rows in read_rows(file).values() for row in rows):
            if row.get("side") == "ftexp":
                shares[row["model"]] = float(row["of the step's"].partition(" ")[0])
    return min(shares, key=shares.__getitem__) if shares else setting.sizes.models[0]


# In the order of what is worth the most where the time of the device is short.
PARTS: dict[str, Part] = {
    "tests": Part("the tests marked gpu", _tests, ("pytest", "pytest_timeout", "xdist", "hypothesis")),
    "throughput": Part("full fine-tuning from JPEG files, beside the bare step and the others", _throughput(0)),
    "cached": Part("head and partial with the cache, beside the other frameworks", _cached),
    "throughput_2": Part("full fine-tuning of the second network, beside the bare step", _throughput(1)),
    "throughput_3": Part("the same, third network", _throughput(2)),
    "throughput_4": Part("the same, fourth network", _throughput(3)),
    "precision": Part("accuracy in bf16 and fp32, and the time to reach it", _precision),
    "profile": Part("kernels and the gaps between them, of the network that is farthest behind its step", _profile),
    "first_step": Part("seconds of the first steps, of another batch size and of compiling, and memory", _first_step),
    "decode": Part("decoding JPEG files by Pillow, by torchvision and by the device", _decode),
}
