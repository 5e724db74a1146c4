"""Copies planted in photographs, also edited ones: what the audit finds, and what CleanVision and fastdup find.

    python -m benchmarks.cleanvision --images ../shared/data/flowers --python PYTHON [--fastdup PYTHON]

PYTHON is the interpreter of another environment with ``pip install cleanvision==0.3.7``, because its requirements may
conflict with those of ftexp; so is that of ``--fastdup``, with ``pip install fastdup==2.54``. Without them, only the
audit is measured. Features are computed and not read from a cache, as in a first run. The sides take turns; rows go to
benchmarks/results.md. The time of CleanVision and fastdup includes starting their process, about a second; the audit's
includes loading its network, but not the import of torch.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from benchmarks.results import append_rows, machine, versions
from ftexp.audit.aligner import Effort
from ftexp.audit.cache import FingerprintCache
from ftexp.audit.duplicates import find_same_images, near_duplicate_findings, near_duplicates
from ftexp.audit.edited_copies import find_edited_copies
from ftexp.audit.features import PretrainedFeatures
from ftexp.audit.fingerprints import look_at_images
from ftexp.data.samples import Sample

# Run in CleanVision's environment: folder -> sets of paths on the last line of its output.
CLEANVISION = """
import json, sys
from cleanvision import Imagelab
lab = Imagelab(data_path=sys.argv[1])
lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=1, verbose=False)
print(json.dumps([s for kind in ("exact_duplicates", "near_duplicates") for s in lab.info[kind]["sets"]]))
"""


# Run in fastdup's environment, on two threads as the others: folder, folder for its files -> pairs of paths.
FASTDUP = """
import json, sys
import fastdup
run = fastdup.create(work_dir=sys.argv[2], input_dir=sys.argv[1])
run.run(threshold=0.9, nearest_neighbors_k=5, num_threads=2, verbose=False, print_summary=False, overwrite=True)
found = run.similarity()
print()
print(json.dumps(found[["filename_from", "filename_to"]].values.tolist()))
"""

NOTHING_KEPT = FingerprintCache(None)


def jpeg(image: Image.Image, quality: int = 90) -> Image.Image:
    """Encode an image as JPEG and decode it."""
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def cropped(image: Image.Image) -> Image.Image:
    """Crop to nine tenths of each side, off the centre."""
    left, top = image.width // 20, image.height // 15
    return image.crop((left, top, left + round(0.9 * image.width), top + round(0.9 * image.height)))


def turned(image: Image.Image) -> Image.Image:
    """Turn by 7 degrees, and crop what is empty."""
    left, top = image.width * 0.12, image.height * 0.12
    return image.rotate(7, Image.Resampling.BICUBIC).crop(
        (round(left), round(top), round(image.width - left), round(image.height - top))
    )


def captioned(image: Image.Image) -> Image.Image:
    """Add a bar with text below."""
    larger = Image.new("RGB", (image.width, image.height + image.height // 6), "black")
    larger.paste(image)
    font = ImageFont.load_default(max(image.height / 12, 8))
    ImageDraw.Draw(larger).text((5, image.height + 4), "Picture of the day", "white", font)
    return larger


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "exact": lambda image: image,
    "JPEG quality 50": lambda image: jpeg(image, 50),
    "half size": lambda image: jpeg(image.resize((image.width // 2, image.height // 2))),
    "flipped": lambda image: jpeg(ImageOps.mirror(image)),
    "cropped by 10 %": lambda image: jpeg(cropped(image)),
    "20 % brighter": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(1.2)),
    "turned by 7°": lambda image: jpeg(turned(image)),
    "caption": lambda image: jpeg(captioned(image)),
    "frame": lambda image: jpeg(ImageOps.expand(image, max(image.size) // 10, (120, 70, 20))),
    "gray": lambda image: jpeg(image.convert("L").convert("RGB")),
}


def plant(folders: list[Path], work: Path, per_kind: int) -> tuple[list[Sample], dict[str, list[tuple[str, str]]]]:
    """Write all images to ``work`` without loss, with copies in the other split; returns the pairs of each kind."""
    sources = sorted(path for folder in folders for path in folder.rglob("*.jpg"))
    rng = np.random.default_rng(0)
    samples, pairs = [], {kind: [] for kind in COPIES}
    for number, source in enumerate(sources):
        samples.append(Sample(str(work / f"original_{number}.png"), "a", "train"))
        Image.open(source).convert("RGB").save(samples[-1].path)
    for kind, change in COPIES.items():
        for number in rng.permutation(len(sources))[:per_kind]:
            copy = str(work / f"{kind.replace(' ', '_').replace('%', 'percent').replace('°', 'degrees')}_{number}.png")
            change(Image.open(samples[number].path)).save(copy)
            pairs[kind].append((samples[number].path, copy))
    samples += [Sample(copy, "a", "val") for found in pairs.values() for _, copy in found]
    return samples, pairs


def by_audit(samples: list[Sample]) -> set[frozenset[str]]:
    """The pairs of paths that the audit finds."""
    extractor, threads, cache = PretrainedFeatures(torch.device("cpu"), views=True), os.cpu_count() or 1, NOTHING_KEPT
    prints = look_at_images(samples, extractor, cache, threads).prints
    assert len(prints) == len(samples)
    across, _ = near_duplicates(samples, prints)
    findings = find_same_images(samples, prints) + near_duplicate_findings(samples, across.near)
    findings += find_edited_copies(samples, prints, Effort(cache), "ignore", findings, across.by_hash)[0]
    return {frozenset((finding.path_a, finding.path_b)) for finding in findings}


def by_cleanvision(python: str, work: Path) -> set[frozenset[str]]:
    """The pairs of paths that CleanVision finds."""
    done = subprocess.run([python, "-I", "-c", CLEANVISION, str(work)], capture_output=True, text=True, check=True)
    sets = json.loads(done.stdout.splitlines()[-1])
    return {frozenset((a, b)) for members in sets for a in members for b in members if a != b}


def by_fastdup(python: str, work: Path) -> set[frozenset[str]]:
    """The pairs of paths that fastdup finds, from its default threshold of likeness on."""
    with tempfile.TemporaryDirectory() as files:
        command = [python, "-I", "-c", FASTDUP, str(work), files]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {frozenset(pair) for pair in json.loads(done.stdout.splitlines()[-1]) if pair[0] != pair[1]}


def main() -> None:
    """Measure both, and print a line for each kind of copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="folders of JPEG photographs")
    parser.add_argument("--per-kind", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", help="interpreter that has cleanvision")
    parser.add_argument("--fastdup", help="interpreter that has fastdup")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        samples, pairs = plant(given.images, work, given.per_kind)
        finders: dict[str, Callable[[], set[frozenset[str]]]] = {"ftexp": lambda: by_audit(samples)}
        if given.python:
            finders["CleanVision"] = lambda: by_cleanvision(given.python, work)
        if given.fastdup:
            finders["fastdup 2.54"] = lambda: by_fastdup(given.fastdup, work)
        wall: dict[str, list[float]] = {name: [] for name in finders}
        processor: dict[str, list[float]] = {name: [] for name in finders}
        found: dict[str, set[frozenset[str]]] = {}
        for _ in range(given.rounds):
            for name, find in finders.items():
                started, used = time.perf_counter(), cpu_seconds()
                found[name] = find()
                wall[name].append(time.perf_counter() - started)
                processor[name].append(cpu_seconds() - used)
        rows = [
            {
                "date": date.today().isoformat(),
                "side": name,
                "images": len(samples),
                "seconds (min to max)": spread(wall[name]),
                "CPU seconds (min to max)": spread(processor[name]),
                "n": given.rounds,
                # What shares no planted pair can be a copy that was in the data before.
                "other pairs": len(found[name] - {frozenset(pair) for planted in pairs.values() for pair in planted}),
            }
            | {
                kind: f"{sum(frozenset(p) in found[name] for p in planted)}/{len(planted)}"
                for kind, planted in pairs.items()
            }
            | {"machine": machine(), "versions": versions()}
            for name in finders
        ]
    append_rows("Planted copies, also edited ones, beside CleanVision 0.3.7 and fastdup", rows)
    for row in rows:
        print(row)


def cpu_seconds() -> float:
    """Processor seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def spread(values: list[float]) -> str:
    """The median, the smallest and the largest value, as text."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
