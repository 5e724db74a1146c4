"""The formats of ``python -m ftexp.export``: an entry here, and a module with ``write`` and ``open_file``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ftexp.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from ftexp.exporting.graph import ClassifierGraph
    from ftexp.exporting.metadata import ExportMetadata
    from ftexp.exporting.opened import OpenedFile, Pixels

PRECISIONS = ("fp32", "fp16", "int8", "int8_dynamic")


class FormatModule(Protocol):
    """What the module of a format has."""

    def write(
        self, graph: ClassifierGraph, metadata: ExportMetadata, file: Path, calibration: Iterable[Pixels]
    ) -> None:
        """Write the file. ``calibration``: images for ``int8``, each uint8 [H, W, 3]."""

    def open_file(self, file: Path, threads: int) -> OpenedFile:
        """Open it again. Raises: anything, when the file is damaged."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes:
        module: has ``write`` and ``open_file``.
        suffix: of its files.
        precisions: that it can be written in.
        writers: packages that write it; ``runtimes``: packages that run it.
        extra: of ftexp that brings them; None: ftexp needs them anyway.
        runs_code: whether opening a file may execute what somebody has put into it.
        weights_only: whether the file is no graph, so that nothing can run it.
    """

    module: str
    suffix: str
    precisions: tuple[str, ...]
    writers: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    extra: str | None = None
    runs_code: bool = False
    weights_only: bool = False


FORMATS = {
    "onnx": Format(
        "ftexp.exporting.onnx_file",
        ".onnx",
        PRECISIONS,
        writers=("onnx", "onnxscript"),
        runtimes=("onnxruntime",),
        extra="onnx",
    ),
    "torch_export": Format("ftexp.exporting.torch_file", ".pt2", ("fp32", "fp16"), runs_code=True),
    "openvino": Format(
        "ftexp.exporting.openvino_file",
        ".xml",
        ("fp32", "fp16"),
        writers=("onnx", "onnxscript"),
        runtimes=("openvino",),
        extra="openvino",
    ),
    "safetensors": Format("ftexp.exporting.safetensors_file", ".safetensors", ("fp32", "fp16"), weights_only=True),
}


def format_of(file: Path) -> str | None:
    """The format that a file has by its name; None: that of no export."""
    return next((name for name, one in FORMATS.items() if one.suffix == file.suffix.lower()), None)


def check_precision(name: str, precision: str) -> None:
    """Raises: ConfigError for a precision that a format does not have."""
    allowed = FORMATS[name].precisions
    if precision not in allowed:
        others = [other for other, one in FORMATS.items() if precision in one.precisions]
        raise ConfigError(
            f"--format {name} has no --precision {precision}; it has {', '.join(allowed)}. {precision} is made by "
            f"--format {' and '.join(others)}."
        )


def module_of(name: str) -> FormatModule:
    """The module of a format."""
    module: FormatModule = import_module(FORMATS[name].module)
    return module


def require_packages(name: str, needed: Sequence[str], what: str) -> None:
    """Say how to get what is not installed.

    Args:
        needed: names of packages.
        what: needs them, for the message.

    Raises:
        DeviceError: with the command that installs them.
    """
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise DeviceError(
            f"{what} needs {' and '.join(missing)}, which is not installed: pip install 'ftexp[{FORMATS[name].extra}]'"
        )
