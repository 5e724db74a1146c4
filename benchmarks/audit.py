"""What does the leakage audit cost, and how does it grow with the number of images?

    python -m benchmarks.audit --images ../shared/data/hymenoptera [--sizes 1000 5000 20000] [--side 256]
        [--no-features] [--no-geometry]

Makes that many distinct square pictures (a random part of a real photograph, overlaid with a colour field
of its own, JPEG), with one image in a hundred copied into another split, and audits each set in a separate process,
without a cache. Appends wall and processor seconds per 1,000 images and the process's peak memory to
benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.results import append_rows, machine, versions
from ftexp.report.tables import format_table

COPY_EVERY = 100


def make_pictures(folder: Path, number: int, photographs: list[Path], side: int) -> None:
    """Write ``train/`` and ``val/`` of two classes each; every hundredth picture of val is one of train."""
    rng = np.random.default_rng(0)
    for index in range(number):
        split, label = ("val" if index % 5 == 0 else "train"), ("a" if index % 2 else "b")
        path = folder / split / label / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if split == "val" and index % COPY_EVERY == 0 and index > 0:
            before = index - 1
            original = folder / "train" / ("a" if before % 2 else "b") / f"{before:06d}.jpg"
            path.write_bytes(original.read_bytes())
            continue
        photograph = Image.open(photographs[rng.integers(len(photographs))]).convert("RGB")
        size = min(photograph.size) * rng.uniform(0.3, 1)
        left, top = rng.uniform(0, photograph.width - size), rng.uniform(0, photograph.height - size)
        part = photograph.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + size, top + size))
        field = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        field = field.resize((side, side), Image.Resampling.BICUBIC)
        Image.blend(part, field, 0.4).save(path, quality=90)


def audit(folder: Path, features: bool, geometry: bool) -> dict[str, float]:
    """Audit a folder in this process."""
    from ftexp.audit.audit import audit_splits, screen_and_look
    from ftexp.audit.features import PretrainedFeatures
    from ftexp.config import AuditConfig, ImageFolderConfig
    from ftexp.data.sources.registry import read_samples
    from ftexp.data.splitting.splits import assign_splits
    from ftexp.machine.runtime import torch

    config = ImageFolderConfig(source="imagefolder", root=str(folder))
    samples = read_samples(config)
    extractor = PretrainedFeatures(torch.device("cpu"), geometry) if features else None
    started, processor = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as out:
        settings = AuditConfig(on_leak="warn", features=features, geometry=geometry, on_scene="warn", cache=None)
        samples, look = screen_and_look(samples, config, settings, Path(out), extractor)
        findings = audit_splits(assign_splits(samples, config), settings, Path(out), look).findings
    return {
        "seconds": time.perf_counter() - started,
        "processor": time.process_time() - processor,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "copies": sum(finding.kind == "same_image" for finding in findings),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="folders of JPEG photographs")
    parser.add_argument("--side", type=int, default=256, help="of the pictures, in pixels")
    parser.add_argument("--no-features", action="store_true")
    parser.add_argument("--no-geometry", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # the measured process
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    geometry = not (arguments.no_geometry or arguments.no_features)
    if arguments.folder:
        print(json.dumps(audit(arguments.folder, not arguments.no_features, geometry)))
        return
    photographs = sorted(path for folder in arguments.images for path in folder.rglob("*.jpg"))
    if not photographs:
        parser.error("--images: a folder of JPEG photographs is needed to make pictures from.")
    rows: list[dict[str, object]] = []
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            make_pictures(Path(folder), size, photographs, arguments.side)
            command = [sys.executable, "-m", "benchmarks.audit", "--folder", folder]
            command += ["--no-features"] if arguments.no_features else []
            command += [] if geometry else ["--no-geometry"]
            ended = subprocess.run(command, capture_output=True, text=True, check=True)
        measured = json.loads(ended.stdout.splitlines()[-1])
        rows.append(
            {
                "date": date.today().isoformat(),
                "images": size,
                "side": arguments.side,
                "features": not arguments.no_features,
                "geometry": geometry,
                "seconds": f"{measured['seconds']:.0f}",
                "seconds per 1,000": f"{1000 * measured['seconds'] / size:.1f}",
                "CPU seconds per 1,000": f"{1000 * measured['processor'] / size:.1f}",
                "peak memory, MiB": f"{measured['peak_mib']:.0f}",
                "copies found": f"{measured['copies']} of {(size - 1) // COPY_EVERY}",
                "n": 1,
                "machine": machine(),
                "versions": versions(),
            }
        )
        print(format_table(rows[-1:]), flush=True)
    append_rows("The audit by the number and the size of images", rows)


if __name__ == "__main__":
    main()
