"""What does the search for copies cost among up to a million images, and does it find them? On simulated fingerprints.

    python -m benchmarks.audit_scale [--sizes 10000 100000 1000000] [--queries 10000]

Draws that many thumbnails (noise at four scales, of random contrast) and features (of clusters with some directions of
their own), one image in a hundred a copy in another split: its thumbnail cropped by a twentieth and noisy, its features
changed by a fifth. Sorts all of them into cells, and searches the neighbours of the last ones, in a process of its own.
Photographs are not decoded, and pairs are not aligned; both take the same time for each image however many there are:
see benchmarks/audit.py. Appends the seconds of both parts, the peak of the process's memory, and the copies found to
benchmarks/results.md. "Other pairs" are near duplicates that were not planted.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from types import ModuleType

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.results import append_rows, machine, versions
from ftexp.audit.fingerprint_table import Fingerprint, Fingerprints
from ftexp.data.digests import bytes_digest
from ftexp.data.samples import Sample
from ftexp.report.tables import format_table

SIDE, DIMENSIONS, CLUSTERS, DIRECTIONS = 64, 320, 200, 60
COPY_EVERY = 100
NUM_SHEETS = 512


def draw(number: int) -> Iterator[tuple[Sample, Fingerprint]]:
    """Samples in splits, and their fingerprints; every hundredth is a copy of the one before it."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(DIRECTIONS, DIMENSIONS)).astype(np.float32)
    centres = rng.normal(size=(CLUSTERS, DIRECTIONS)).astype(np.float32)
    thumbnail, feature = np.zeros((SIDE, SIDE), np.uint8), np.zeros(DIMENSIONS, np.float32)
    noise = _Noise(rng)
    for index in range(number):
        is_copy = index % COPY_EVERY == COPY_EVERY - 1
        if is_copy:
            thumbnail, feature = _cropped(thumbnail, rng), _changed(feature, rng, 0.2)
        else:
            thumbnail = noise.draw()
            feature = (centres[rng.integers(CLUSTERS)] + rng.standard_normal(DIRECTIONS, np.float32)) @ axes
        views = np.stack([_changed(feature, rng, 0.4) for _ in range(2)])
        digest = bytes_digest(str(index).encode())
        facts: dict[str, str | float] = {"bytes": 20_000 + index, "width": 300, "height": 200 + index % 100}
        facts |= {"format": "JPEG", "mode": "RGB", "exif_make": "A camera", "exif_model": f"Model {index % 7}"}
        one = Fingerprint(digest, digest, thumbnail, 200, facts, feature.astype(np.float16), views.astype(np.float16))
        split = "train" if is_copy or index % 5 < 3 else "val"
        # The one before a copy is in another split.
        split = "val" if index % COPY_EVERY == COPY_EVERY - 2 else split
        yield Sample(f"/data/pictures/class_{index % 100:03d}/image_{index:08d}.jpg", str(index % 100), split), one


class _Noise:
    """Pictures of four layers, each a random part of a random sheet of noise, at a scale of its own."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, sheets = rng, rng.integers(0, 256, (NUM_SHEETS, 80, 80), np.uint8)
        self._layers = [
            [
                np.asarray(Image.fromarray(sheet[:size, :size]).resize((2 * SIDE, 2 * SIDE), Image.Resampling.BILINEAR))
                for sheet in sheets
            ]
            for size in (8, 16, 32, 80)
        ]

    def draw(self) -> npt.NDArray[np.uint8]:
        sheets, lefts, tops = self._rng.integers(0, ((NUM_SHEETS,), (SIDE,), (SIDE,)), (3, len(self._layers))).tolist()
        total = np.zeros((SIDE, SIDE), np.float32)
        for layer, sheet, left, top in zip(self._layers, sheets, lefts, tops, strict=True):
            total += layer[sheet][top : top + SIDE, left : left + SIDE]
        spread = np.float32(self._rng.uniform(0.6, 1.8) / len(self._layers))
        return np.clip(128 + (total - 510) * spread, 0, 255).astype(np.uint8)


def _cropped(thumbnail: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    image = Image.fromarray(thumbnail).resize((SIDE, SIDE), Image.Resampling.BILINEAR, (2, 1, SIDE - 1, SIDE - 2))
    return np.clip(np.asarray(image) + rng.normal(0, 3, (SIDE, SIDE)), 0, 255).astype(np.uint8)


def _changed(feature: npt.NDArray[np.float32], rng: np.random.Generator, share: float) -> npt.NDArray[np.float32]:
    changed: npt.NDArray[np.float32] = feature + rng.standard_normal(DIMENSIONS, np.float32) * (share * feature.std())
    return changed


def search(number: int, num_queries: int) -> dict[str, float]:
    """Search in this process, the neighbours of a part of the images."""
    from ftexp.audit import feature_candidates, hash_candidates
    from ftexp.audit.edited_copies import FeatureCandidates
    from ftexp.audit.near_duplicates import NearDuplicates
    from ftexp.audit.pairs import both, differ, is_equal

    prints, samples = Fingerprints(), list[Sample]()
    for sample, one in draw(number):
        samples.append(sample)
        prints.append(one)
    split = np.array([sample.split == "val" for sample in samples]).astype(np.int64)
    queries = np.arange(number)[-num_queries:]
    drawn = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    building = [_timed(module, "Neighbours") for module in (hash_candidates, feature_candidates)]
    started = time.process_time()
    near = NearDuplicates(prints)
    across, within = near.search([partial(differ, split), partial(is_equal, split)], queries)
    unequal = both(partial(differ, split), partial(differ, prints.pictures))
    asked = queries[split[queries] > 0]
    pairs = FeatureCandidates(prints, np.arange(number)).edited(unequal, asked)
    seconds, built = time.process_time() - started, sum(part[0] for part in building)
    found = {(i, j) for i, j, _ in (*across.near, *within.near)}
    wanted = [(int(i) - 1, int(i)) for i in queries if i % COPY_EVERY == COPY_EVERY - 1]
    return {
        "built": built,
        "searched": seconds - built,
        "queries": len(queries),
        "drawn_mib": drawn,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "copies": sum(pair in found for pair in wanted),
        "planted": len(wanted),
        "others": len(found - set(wanted)),
        "pairs": len(pairs) / max(len(asked), 1),
    }


def _timed(module: ModuleType, name: str) -> list[float]:
    """Let a class of a module be built as before; in the list that is returned are the processor seconds of that."""
    original, seconds = getattr(module, name), [0.0]

    def build(*arguments: object) -> object:
        started = time.process_time()
        built = original(*arguments)
        seconds[0] += time.process_time() - started
        return built

    setattr(module, name, build)
    return seconds


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=10_000, help="images whose neighbours are searched")
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)  # the measured process
    arguments = parser.parse_args(given)
    logging.basicConfig(level=logging.INFO)
    if arguments.number:
        print(json.dumps(search(arguments.number, arguments.queries)))
        return
    rows: list[dict[str, object]] = []
    for size in arguments.sizes:
        command = [sys.executable, "-m", "benchmarks.audit_scale", "--number", str(size)]
        command += ["--queries", str(arguments.queries)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        measured = json.loads(ended.stdout.splitlines()[-1])
        rows.append(
            {
                "date": date.today().isoformat(),
                "images": size,
                "queries": measured["queries"],
                "CPU seconds per 1,000 images": f"{1000 * measured['built'] / size:.2f}",
                "CPU seconds per 1,000 queries": f"{1000 * measured['searched'] / measured['queries']:.2f}",
                "MiB with the fingerprints": f"{measured['drawn_mib']:.0f}",
                "peak memory, MiB": f"{measured['peak_mib']:.0f}",
                "copies found": f"{measured['copies']} of {measured['planted']}",
                "other pairs found": measured["others"],
                "pairs to align, for each image of val": f"{measured['pairs']:.2f}",
                "n": 1,
                "machine": machine(),
                "versions": versions(),
            }
        )
        print(format_table(rows[-1:]), flush=True)
        append_rows("The audit's search by the number of images, simulated", rows[-1:])


if __name__ == "__main__":
    main()
