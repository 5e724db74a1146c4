"""Leaks planted in real photographs: how many are found, and how many strangers are taken for copies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from photographs import PLANTED
from PIL import Image

from ftexp.audit.cache import FingerprintCache
from ftexp.audit.duplicates import find_near_duplicates, find_same_images
from ftexp.audit.features import PretrainedFeatures
from ftexp.audit.fingerprints import take_fingerprints
from ftexp.data.samples import Sample

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
PER_KIND = 60
# Some sets hold real duplicates of their own: bccd_cells shows cells twice, under two slide names.
REAL_DUPLICATES = {"bccd_cells"}


def files(folder: str, limit: int) -> list[Path]:
    found = sorted((DATA / folder).rglob("*.jpg"))
    if not found:
        pytest.skip(f"{folder} is not beside the repository")
    chosen = np.random.default_rng(0).permutation(len(found))[:limit]
    return [found[i] for i in sorted(chosen)]


def planted(originals: list[Path], folder: Path) -> Iterator[tuple[str, str, Sample]]:
    """Kind, path of the original, and the copy as a sample of the val split."""
    rng = np.random.default_rng(1)
    for kind, change in {"exact": lambda image: image, **PLANTED}.items():
        for number, source in enumerate(rng.permutation(len(originals))[:PER_KIND]):
            copy = folder / f"{kind.replace(' ', '_')}_{number}.png"
            change(Image.open(originals[source]).convert("RGB")).save(copy)
            yield kind, str(originals[source]), Sample(str(copy), "a", "val")


# bccd_cells: cells of 19 to 117 px, in whose smallest JPEG at quality 50 or halving leaves little detail to go by.
@pytest.mark.slow
@pytest.mark.parametrize(("folder", "least"), [("hymenoptera", 0.95), ("sign_digits", 0.95), ("bccd_cells", 0.8)])
def test_planted_leaks(folder: str, least: float, tmp_path: Path) -> None:
    originals = files(folder, 1500)
    copies = list(planted(originals, tmp_path))
    samples = [Sample(str(path), "a", "train") for path in originals] + [sample for *_, sample in copies]
    extractor = PretrainedFeatures(torch.device("cpu"))
    prints = take_fingerprints(samples, extractor, FingerprintCache(None), 2)
    findings = find_same_images(samples, prints) + find_near_duplicates(samples, prints)
    found = {(finding.path_a, finding.path_b) for finding in findings}
    rates = {
        kind: float(np.mean([(source, sample.path) in found for k, source, sample in copies if k == kind]))
        for kind in ("exact", *PLANTED)
    }
    print(folder, len(samples), "images:", {kind: round(rate, 3) for kind, rate in rates.items()})
    assert rates["exact"] == 1
    assert min(rates.values()) >= least, rates


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["hymenoptera", "sign_digits", "bccd_cells"])
def test_false_alarms(folder: str) -> None:
    samples = [Sample(str(path), "a", ("train", "val")[i % 2]) for i, path in enumerate(files(folder, 2100))]
    prints = take_fingerprints(samples, PretrainedFeatures(torch.device("cpu")), FingerprintCache(None), 2)
    found = find_near_duplicates(samples, prints)
    print(folder, len(samples), "images,", len(found), "alarms:", [round(finding.score, 3) for finding in found[:20]])
    if folder not in REAL_DUPLICATES:
        assert len(found) <= 0.001 * len(samples)
