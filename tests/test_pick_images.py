"""``python -m ftexp.pick_images`` as a user runs it."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CommandLine
from PIL import Image
from small_pictures import SETTINGS, small_pictures

from ftexp import unlabelled_images
from ftexp.audit.cache import FingerprintCache
from ftexp.audit.fingerprint_table import Fingerprint, Fingerprints, FingerprintsByPath
from ftexp.audit.fingerprints import look_at_images
from ftexp.data.samples import Sample
from ftexp.pick_images import main

__all__ = ["small_pictures"]
NEW = ("probe.unlabelled=new", "probe.count=3")


def draw_new(folder: Path) -> None:
    rng = np.random.default_rng(1)
    (folder / "deeper").mkdir(parents=True)
    for i in range(5):
        pixels = np.clip(np.array((130, 130, 60)) + rng.normal(0, 60, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "deeper" / f"{i}.png")


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_only_new_images_that_can_be_read_are_picked_each_once(small_pictures: Path, command_line: CommandLine) -> None:
    draw_new(Path("new"))
    for number in range(6):  # a copy of every image of a class, those of the test split among them
        shutil.copy(f"base/ape/{number}.png", f"new/known{number}.png")
    shutil.copy("new/deeper/0.png", "new/deeper/again.png")
    Path("new/broken.png").write_text("no image")
    before = {path: path.read_bytes() for path in Path("new").rglob("*.png")}
    ended = command_line(*SETTINGS, *NEW, "data.test_fraction=0.15", entry=main)
    assert ended.returncode == 0, ended.stderr
    assert (
        "images  13 in new: 1 cannot be read, 6 are copies of labelled images, 1 are repeats of another new image; "
        "5 can be picked" in ended.stdout
    )
    assert "1 of 13 files in new cannot be read as images, for example new/broken.png: " in ended.stdout
    assert [row["path"] for row in rows("out/unreadable.csv")] == ["new/broken.png"]
    picked = rows("out/picks.csv")
    assert [row["rank"] for row in picked] == ["1", "2", "3"]
    assert {row["path"] for row in picked} < {f"new/deeper/{i}.png" for i in range(5)}
    assert all(0 <= int(row["stands_for"]) < 5 for row in picked)
    assert Path("out/picks.html").read_text().count("data:image/jpeg") == 3
    assert {path: path.read_bytes() for path in Path("new").rglob("*.png")} == before


def test_images_without_anything_new_are_refused(small_pictures: Path, command_line: CommandLine) -> None:
    shutil.copytree("base", "new")
    ended = command_line(*SETTINGS, *NEW, entry=main)
    assert ended.returncode == 1
    assert "No image in new can be picked: all are copies of labelled images, or cannot be read." in ended.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), "probe.unlabelled is not given. Name the folder of images to pick from: probe.unlabelled=FOLDER"),
        (("probe.unlabelled=nowhere",), "probe.unlabelled=nowhere is not a folder."),
        (("probe.unlabelled=",), "probe.unlabelled is empty."),
        (("probe.count=0",), "probe.count=0 is not allowed: it must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(command_line: CommandLine, settings: tuple[str, ...], message: str) -> None:
    ended = command_line(*settings, entry=main)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"ftexp: {message}")


def test_fingerprints_of_labelled_and_new_images_are_not_listed_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_new(tmp_path)
    samples = [Sample(str(path), "a") for path in sorted(tmp_path.rglob("*.png"))]
    prints = look_at_images(samples, None, FingerprintCache(None), 1).prints
    look = FingerprintsByPath.of_samples(samples, prints, 0)
    images = SimpleNamespace(samples=samples[:2], look=look)
    given: list[object] = []

    def joined(parts: Iterable[Fingerprint]) -> Fingerprints:
        given.append(parts)
        return Fingerprints(parts)

    monkeypatch.setattr(unlabelled_images, "Fingerprints", joined)
    new, num_known = unlabelled_images._without_copies(images, samples[1:], prints[1:])  # type: ignore[arg-type]
    assert ([one.path for one in new], num_known) == ([one.path for one in samples[2:]], 1)
    assert isinstance(given[0], Iterator)
