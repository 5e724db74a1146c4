"""What ``python -m ftexp.export`` does, one step after the other."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from ftexp.data.loading.images import open_image
from ftexp.data.loading.limits import ImageLimits
from ftexp.data.samples import Sample
from ftexp.errors import CheckpointError, ConfigError, DataError
from ftexp.exporting.certificate import MIN_AGREEMENT, Certificate, certify
from ftexp.exporting.exported import CERTIFICATE, certified, digests_of, open_exported
from ftexp.exporting.formats import FORMATS, check_precision, module_of, require_packages
from ftexp.exporting.graph import ClassifierGraph
from ftexp.exporting.metadata import ExportMetadata
from ftexp.exporting.opened import Pixels
from ftexp.files.json_files import write_json
from ftexp.files.run_files import IDENTITY
from ftexp.inference.calibration import read_calibration
from ftexp.inference.engine import NetworkEngine
from ftexp.inference.load import find_checkpoint, read_network
from ftexp.inference.run_data import RunData
from ftexp.models.blocks import Network
from ftexp.run_identity import installed_versions


@dataclass(frozen=True, slots=True)
class Export:
    """What is asked for; see the options of ``python -m ftexp.export``."""

    run: str
    format: str
    output: Path | None = None
    precision: str = "fp32"
    min_agreement: float | None = None
    calibration_images: int = 128
    data: tuple[str, ...] = ()

    @property
    def wanted_agreement(self) -> float:
        """``min_agreement``, or what the precision is held to without it."""
        return MIN_AGREEMENT.get(self.precision, 0.0) if self.min_agreement is None else self.min_agreement


def export(asked: Export) -> int:
    """Write the file, certify it, and print what was found.

    Returns:
        The exit code: 1 when the certificate does not hold.

    Raises:
        UserError: for whatever is wrong with the options, the run or its images, before anything is written.
    """
    _check_options(asked)
    checkpoint = find_checkpoint(asked.run)
    folder = checkpoint.parent.parent
    file = _place(asked, folder)
    validation = _images(asked, folder, "val") if not FORMATS[asked.format].weights_only else []
    calibration = _images(asked, folder, "train") if asked.precision == "int8" else []
    network, classes, content = read_network(checkpoint)
    calibrated = read_calibration(checkpoint)
    metadata = ExportMetadata(
        classes=classes,
        preprocessing=network.preprocessing,
        run=str(folder),
        network=network.name,
        precision=asked.precision,
        temperature=calibrated.temperature if calibrated else 1.0,
        versions=_versions(asked.format),
        calibration=calibrated,
        limits=ImageLimits.of_checkpoint(content),
    )
    _write(asked, network, metadata, file, calibration)
    if FORMATS[asked.format].weights_only:
        print("These are the weights alone: nothing can run the file, so there is no certificate.")
        return 0
    engine, _ = open_exported(file)
    reference = NetworkEngine(network, metadata.temperature, "cpu")
    certificate = certify(reference, engine, classes, validation, asked.wanted_agreement)
    _leave(certificate, asked, metadata, file)
    return _report(certificate, file)


def _check_options(asked: Export) -> None:
    check_precision(asked.format, asked.precision)
    wanted = FORMATS[asked.format]
    require_packages(asked.format, (*wanted.writers, *wanted.runtimes), f"--format {asked.format}")
    if asked.min_agreement is None and asked.precision not in MIN_AGREEMENT:
        raise ConfigError(
            f"--precision {asked.precision} changes answers, and how much of that is allowed is for you to say: add "
            "--min-agreement SHARE, such as 0.97."
        )
    if not 0 <= asked.wanted_agreement <= 1:
        raise ConfigError(f"--min-agreement {asked.min_agreement:g}: it is a share from 0 to 1.")
    if asked.calibration_images < 1:
        raise ConfigError(f"--calibration-images {asked.calibration_images}: it takes at least 1.")


def _place(asked: Export, folder: Path) -> Path:
    """Where the file is to lie; refused where it would leave another file without its certificate."""
    suffix = FORMATS[asked.format].suffix
    file = asked.output or folder / "exports" / f"{asked.format}-{asked.precision}" / f"model{suffix}"
    file = file.expanduser()
    if file.suffix != suffix:
        raise ConfigError(f"--output {file}: files of --format {asked.format} end in {suffix}.")
    certificate = file.with_name(CERTIFICATE)
    of_others = [name for name in (certified(certificate) or ()) if file.with_name(name).exists()]
    if of_others and file.name not in of_others:
        raise ConfigError(
            f"{certificate} is that of {of_others[0]}, and would be replaced. Give --output a file in another folder."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _images(asked: Export, folder: Path, split: str) -> Sequence[Sample]:
    if not (folder / IDENTITY).exists():
        raise CheckpointError(
            f"{asked.run} is not in the folder of a run, on whose validation images the file would be compared with "
            "it. Give the folder of the run, or --format safetensors, which needs none."
        )
    try:
        return RunData.of(folder, asked.data).samples(split)
    except DataError as error:
        if "--data" in str(error):
            raise
        raise DataError(f"{error} Where images were moved, say where to: --data data.root=FOLDER.") from error


def _write(
    asked: Export, network: Network, metadata: ExportMetadata, file: Path, calibration: Sequence[Sample]
) -> None:
    """Write the file beside its place, then move it there: whoever reads that place finds a whole one."""
    half = asked.precision == "fp16" and asked.format != "openvino"  # which keeps weights alone in 16 bits
    graph = ClassifierGraph(network, metadata.temperature, half=half)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".export-") as unfinished:
        written = Path(unfinished) / file.name
        module_of(asked.format).write(graph, metadata, written, _pixels(calibration, asked.calibration_images))
        (file.with_name(CERTIFICATE)).unlink(missing_ok=True)  # of the file that is replaced now
        for part in sorted(digests_of(written)):
            os.replace(written.with_name(part), file.with_name(part))
    parts = [file.with_name(name) for name in digests_of(file)]
    size = sum(part.stat().st_size for part in parts) / 1e6
    print(f"{' and '.join(map(str, parts))}: {size:.1f} MB, {time.perf_counter() - begun:.0f} s")


def _pixels(samples: Sequence[Sample], number: int) -> Iterator[Pixels]:
    """Images from all over the samples, which are in the order of their classes."""
    for place in np.linspace(0, len(samples) - 1, min(number, len(samples))).round().astype(int):
        yield np.array(open_image(samples[place]))


def _versions(name: str) -> dict[str, str]:
    wanted = FORMATS[name]
    return {**installed_versions(), **{package: version(package) for package in (*wanted.writers, *wanted.runtimes)}}


def _leave(certificate: Certificate, asked: Export, metadata: ExportMetadata, file: Path) -> None:
    facts = {
        "run": metadata.run,
        "format": asked.format,
        "precision": asked.precision,
        "sha256": digests_of(file),
        "versions": metadata.versions,
        "threads": torch.get_num_threads(),
    }
    write_json(file.with_name(CERTIFICATE), {**facts, **certificate.as_dict()})


def _report(certificate: Certificate, file: Path) -> int:
    print("\n".join(certificate.lines()))
    if certificate.holds:
        print(f"This is in {file.with_name(CERTIFICATE)}.")
        return 0
    print(
        f"ftexp: {file} is no copy of the run: they agree on {100 * certificate.agreement:.2f} % of the validation "
        f"images, and --min-agreement asks for {100 * certificate.min_agreement:g} %.",
        file=sys.stderr,
    )
    return 1
