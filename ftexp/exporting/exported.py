"""An exported file as an engine: the same questions, answered by another runtime."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ftexp.errors import CheckpointError, ConfigError, DeviceError, UserError
from ftexp.exporting.formats import FORMATS, format_of, module_of, require_packages
from ftexp.exporting.metadata import ExportMetadata
from ftexp.exporting.opened import Floats, Pixels
from ftexp.files.json_files import read_json
from ftexp.files.run_files import IDENTITY
from ftexp.inference.classifier import Classifier

CERTIFICATE = "certificate.json"
# Pixels that are computed at once: more images of a size than have so many are cut into several batches.
_MAX_PIXELS = 2**23


class ExportedEngine:
    """Computes on the CPU, in the runtime of the file; images of one size together.

    Args:
        compute: RGB pixels, uint8 [N, H, W, 3] -> probabilities, float32 [N, C].
        temperature: by which the graph divides logits.
    """

    device = "cpu"
    max_batch_mib = 128  # images keep their size until the graph resizes them

    def __init__(self, compute: Callable[[Pixels], Floats], temperature: float = 1.0) -> None:
        self._compute = compute
        self.temperature = temperature

    def prepare(self, image: Image.Image) -> Tensor:
        """The pixels as they are. Returns: uint8 [H, W, 3]."""
        return torch.from_numpy(np.array(image))

    def probabilities(self, images: Sequence[Tensor]) -> Floats:
        """Of images of any sizes. Returns: float32 [N, C]."""
        of_size = defaultdict[torch.Size, list[int]](list)
        for number, image in enumerate(images):
            of_size[image.shape].append(number)
        rows: dict[int, Floats] = {}
        for (height, width, _), numbers in of_size.items():
            at_once = max(1, _MAX_PIXELS // (height * width))
            for start in range(0, len(numbers), at_once):
                some = numbers[start : start + at_once]
                rows.update(zip(some, self._compute(np.stack([images[n].numpy() for n in some])), strict=True))
        return np.stack([rows[number] for number in range(len(images))])


def load_exported(file: Path, device: str = "auto", *, trust: bool = False) -> Classifier:
    """Load a file of ``python -m ftexp.export`` as a classifier.

    Args:
        device: ``auto`` or ``cpu``.
        trust: of a ``.pt2`` file, that it may run code: torch unpickles and evaluates what stands in it.

    Raises:
        CheckpointError: when the file is damaged, is not the one that its certificate is of, or is no export.
        ConfigError: for a ``.pt2`` file without ``trust``.
        DeviceError: for another device, or when the file's runtime is not installed.
    """
    if device not in ("auto", "cpu"):
        raise DeviceError(f"{file} is an exported file, which ftexp runs on the CPU; device={device} is for runs.")
    if FORMATS[_name(file)].runs_code and not trust:
        raise ConfigError(
            f"{file} can execute code when it is loaded: torch.export reads pickles and evaluates expressions. If you "
            f"or somebody you trust exported it, --trust loads it, in Python ftexp.load({str(file)!r}, trust=True). "
            "Runs and ONNX files execute nothing."
        )
    engine, metadata = open_exported(file)
    run = _run_of(file, metadata)
    classes, preprocessing = metadata.classes, metadata.preprocessing
    return Classifier(engine, classes, preprocessing, str(file), run, metadata.calibration, metadata.limits)


def _run_of(file: Path, metadata: ExportMetadata) -> str:
    """The folder of the run as it was called when it was exported, or in which the file lies, as by default."""
    default = file.absolute().parent.parent.parent
    elsewhere = not (Path(metadata.run) / IDENTITY).exists() and (default / IDENTITY).exists()
    return str(default) if elsewhere else metadata.run


def open_exported(file: Path) -> tuple[ExportedEngine, ExportMetadata]:
    """Open a file that may be trusted in its own runtime; errors as of ``load_exported``."""
    name = _name(file)
    require_packages(name, FORMATS[name].runtimes, str(file))
    _check_certified(file)
    try:
        compute, texts = module_of(name).open_file(file, torch.get_num_threads())
    except UserError:
        raise
    except Exception as error:  # whatever the runtime raises on damaged bytes
        raise CheckpointError(f"{file} is damaged, or no file of --format {name}. Export the run again.") from error
    metadata = ExportMetadata.from_texts(texts, file)
    _try_out(compute, file, len(metadata.classes))
    return ExportedEngine(compute, metadata.temperature), metadata


def digests_of(file: Path) -> dict[str, str]:
    """SHA-256 of an exported file, and of the weights that OpenVINO has beside it, by their names."""
    digests = {}
    for part in (file, file.with_suffix(".bin")):
        if part == file or (file.suffix == ".xml" and part.exists()):
            with part.open("rb") as opened:
                digests[part.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return digests


def _name(file: Path) -> str:
    name = format_of(file)
    assert name is not None, file
    return name


def certified(certificate: Path) -> dict[str, str] | None:
    """The digests of the files that a certificate is of, by their names; None where there is none."""
    found = read_json(certificate).get("sha256") if certificate.exists() else None
    return found if isinstance(found, dict) else None


def _check_certified(file: Path) -> None:
    """Refuse a file that has changed since it was certified."""
    certificate = file.with_name(CERTIFICATE)
    known = certified(certificate)
    if known is not None and file.name in known and known != digests_of(file):
        raise CheckpointError(f"{file} is damaged: it is not the file that {certificate} is of. Export the run again.")


def _try_out(compute: Callable[[Pixels], Floats], file: Path, num_classes: int) -> None:
    try:
        shape: object = compute(np.zeros((1, 2, 3, 3), np.uint8)).shape
    except Exception as error:  # whatever the runtime raises
        raise CheckpointError(f"{file} is damaged: its graph does not run. Export the run again.") from error
    if shape != (1, num_classes):
        raise CheckpointError(
            f"{file} is damaged: it gives {shape} for one image, and names {num_classes} classes. Export the run again."
        )
