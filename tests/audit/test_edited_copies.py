"""Edited copies and scenes in two splits are found, listed and kept together."""

from __future__ import annotations

import csv
import logging
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import real_images
from edits import EDITS, OVERLAYS, in_perspective, picture, turned_and_cut
from photographs import find_near_duplicates, fingerprints_of, save
from PIL import Image

from ftexp import progress_lines
from ftexp.audit import aligner, ties
from ftexp.audit.aligner import Alignments, Effort, align_pairs
from ftexp.audit.audit import audit_splits, screen_and_look
from ftexp.audit.cache import FingerprintCache
from ftexp.audit.duplicates import find_copies, near_duplicates
from ftexp.audit.edited_copies import OnScene, find_edited_copies
from ftexp.audit.features import PretrainedFeatures
from ftexp.audit.findings import Finding
from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.geometry import Alignment
from ftexp.audit.local_features import COARSE, Detail, LocalFeatures, find_local_features
from ftexp.audit.near_duplicates import MIN_LIKENESS
from ftexp.audit.registration import likeness
from ftexp.config import AuditConfig, DataConfig
from ftexp.data.samples import Sample, SampleTable
from ftexp.errors import ConfigError, LeakError

NO_CACHE = FingerprintCache(None)


class Coarse:
    """Features that are close for similar pictures: the thumbnail at 8 x 8."""

    name = "coarse"
    views = True

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        small = images.reshape(len(images), 8, 8, 8, 8, 3).mean(axis=(2, 4))
        return small.reshape(len(images), -1).astype(np.float32) / 255


def found_in(samples: list[Sample], cache: FingerprintCache = NO_CACHE, on_scene: OnScene = "warn") -> list[Finding]:
    return edited_copies(samples, fingerprints_of(samples, Coarse(), cache), cache, on_scene)


def edited_copies(
    samples: list[Sample],
    prints: Fingerprints,
    cache: FingerprintCache = NO_CACHE,
    on_scene: OnScene = "warn",
    known: Sequence[Finding] = (),
) -> list[Finding]:
    by_hash = near_duplicates(samples, prints)[0].by_hash
    return find_edited_copies(samples, prints, Effort(cache), on_scene, known, by_hash)[0]


def told(samples: list[Sample], prints: Fingerprints, cache: FingerprintCache = NO_CACHE) -> list[tuple[int, str]]:
    """What the search says of pictures that it leaves out."""
    return find_copies(samples, prints, Effort(cache), "warn").notes


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("drawn")
    others = [save(folder, f"{seed}.png", picture(seed), "train" if seed % 2 else "val") for seed in range(6)]
    turned = save(folder, "turned.png", turned_and_cut(picture(1), 7), "test")
    oblique = save(folder, "oblique.png", in_perspective(picture(3)), "val")
    return [*others, turned, oblique]


@pytest.fixture
def samples(drawn: list[Sample], tmp_path: Path) -> list[Sample]:
    """Six pictures, and copies of two of them in other splits."""
    return [replace(sample, path=shutil.copy(sample.path, tmp_path)) for sample in drawn]


def test_copies_in_other_splits_are_found(samples: list[Sample]) -> None:
    found = found_in(samples)
    assert {(one.kind, one.severity, Path(one.path_a).name, Path(one.path_b).name) for one in found} == {
        ("edited_copy", "fail", "1.png", "turned.png"),
        ("edited_copy", "fail", "3.png", "oblique.png"),
    }
    assert [one.inliers for one in found] == sorted((one.inliers or 0 for one in found), reverse=True)
    assert all(0.49 <= one.score <= 1 and (one.inliers or 0) >= 12 for one in found)
    known = [Finding("near_duplicate", "fail", one.split_b, one.path_b, one.split_a, one.path_a, 1) for one in found]
    prints = fingerprints_of(samples, Coarse())
    assert edited_copies(samples, prints, known=known) == []
    assert edited_copies(samples, fingerprints_of(samples)) == []  # without features


def test_within_a_split_nothing_leaks(samples: list[Sample]) -> None:
    assert found_in([Sample(one.path, one.label, "val") for one in samples]) == []


def test_small_pictures_are_left_to_the_search_for_near_duplicates(tmp_path: Path) -> None:
    for side, has_views in ((63, False), (64, True)):
        sample = save(tmp_path, f"{side}.png", picture(1).resize((side, 90)))
        (seen,) = fingerprints_of([sample], Coarse())
        assert (seen.features.size, seen.views.size > 0) == (192 * has_views, has_views)


def test_a_pair_is_aligned_once_for_all_audits(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FingerprintCache(tmp_path / "cache.sqlite")
    first = found_in(samples, cache)
    monkeypatch.setattr(aligner, "align", None)  # nothing calls it
    assert found_in(samples, cache) == first
    assert sorted(map(repr, found_in(samples[::-1], cache))) == sorted(map(repr, first))


def test_a_search_that_takes_long_says_how_long(
    samples: list[Sample], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress_lines, "SECONDS_BETWEEN", 0)
    monkeypatch.setattr(aligner, "PAIRS_AT_ONCE", 1)
    found_in(samples)
    assert re.search(r"aligned 1 of \d+ pairs of pictures; about \d+ s left", caplog.text)
    assert not re.search(r"aligned (\d+) of \1 ", caplog.text)


def test_pictures_that_are_not_aligned_are_counted(samples: list[Sample], tmp_path: Path) -> None:
    small = [save(tmp_path, f"small {seed}.png", picture(seed).resize((90, 60))) for seed in range(3)]
    plain = [
        save(tmp_path, f"{split}.png", Image.new("RGB", (90, len(split) + 80)), split) for split in ("train", "val")
    ]
    cache = FingerprintCache(tmp_path / "cache.sqlite")
    everything = [*samples, *small, *plain]
    for _ in range(2):  # also when their pairs are known
        too_small, no_points = told(everything, fingerprints_of(everything, Coarse(), cache), cache)
        assert "3 images with a side under 64 px are not aligned" in too_small[1]
        assert "2 pictures have no points" in no_points[1]


def test_few_pictures_are_kept_in_memory(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found_in(samples)
    for name, most in (("MAX_COARSE", 2), ("MAX_FINE", 2), ("PAIRS_AT_ONCE", 1)):
        monkeypatch.setattr(aligner, name, most)
    assert found_in(samples) == whole


def test_the_coarse_points_of_a_picture_are_found_once(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of those in which common points are looked for."""
    searched: list[bytes] = []

    def find(image: Image.Image, detail: Detail) -> LocalFeatures:
        if detail == COARSE:
            searched.append(image.tobytes())
        return find_local_features(image, detail)

    monkeypatch.setattr(aligner, "find_local_features", find)
    assert len(found_in(samples)) == 2
    assert len(searched) == len(set(searched)) > 2


@pytest.mark.parametrize("kind", ["16 bit", "alpha", "palette", "a line", "one colour"])
def test_strange_pictures(kind: str, samples: list[Sample], tmp_path: Path) -> None:
    copy = turned_and_cut(picture(5), 7)
    transparent = copy.convert("RGBA")
    transparent.paste((0, 0, 0, 0), (0, 0, 60, 60))
    strange: dict[str, Image.Image] = {
        "16 bit": Image.fromarray(np.asarray(copy.convert("L")).astype(np.uint16) * 257),
        "alpha": transparent,
        "palette": copy.convert("P"),
        "a line": copy.resize((20_000, 10)),
        "one colour": Image.new("RGB", copy.size, "red"),
    }
    sample = save(tmp_path, "strange.png", strange[kind], "val")
    found = [one for one in found_in([*samples, sample]) if one.path_b == sample.path]
    assert [Path(one.path_a).name for one in found] == (["5.png"] if kind in ("16 bit", "alpha", "palette") else [])


def test_a_picture_that_is_gone_is_named(samples: list[Sample]) -> None:
    prints = fingerprints_of(samples, Coarse())
    Path(samples[-1].path).unlink()
    found = edited_copies(samples, prints)
    assert [Path(one.path_b).name for one in found] == ["turned.png"]
    why = "These images could be read the first time but not the second, so they were not aligned"
    assert told(samples, prints) == [(logging.WARNING, f"audit   {why}: {samples[-1].path}.")]


@pytest.mark.parametrize(("on_scene", "severity"), [("warn", "warn"), ("fail", "fail"), ("ignore", None)])
def test_what_a_scene_is_taken_for(
    samples: list[Sample], on_scene: OnScene, severity: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aligner, "align", lambda *_: Alignment(30, 0.2, 1.0, 9, 0.1))
    found = found_in(samples, on_scene=on_scene)
    assert {(one.kind, one.severity) for one in found} == ({("same_scene", severity)} if severity else set())


def test_an_audit_fails_for_them_and_ties_keep_them_together(
    samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = AuditConfig(on_leak="fail", features=True, geometry=True, on_scene="warn", cache=None)
    _, look = screen_and_look(samples, DataConfig(source="imagefolder"), config, tmp_path, Coarse())
    with pytest.raises(LeakError, match=r"(?s)2 x one picture, edited .*set data\.tie_duplicates=true"):
        audit_splits(samples, config, tmp_path, look)
    with pytest.raises(LeakError, match=r"(?s)2 x one picture, edited .*leave out the images") as refused:
        audit_splits(samples, config, tmp_path, look, tied=True)
    assert "set data.tie_duplicates" not in str(refused.value), "it is set already"
    with (tmp_path / "leaks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["kind"] for row in rows} == {"edited_copy"}
    assert all(int(row["inliers"]) >= 12 for row in rows)
    assert (tmp_path / "leaks.png").stat().st_size > 10_000
    assert audit_splits(samples, config, tmp_path, look, until=0.0).findings == []
    assert "pairs of pictures were not aligned" in caplog.text
    tied = ties.split_tied(samples, config, look, lambda _: SampleTable.of(samples))
    assert_pairs(samples, tied.sets)


def test_what_the_last_search_for_ties_has_found_is_not_searched_again(
    samples: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit says the same, also of what is not listed, and the search itself says nothing."""
    caplog.set_level(logging.INFO)
    samples += [save(tmp_path, f"small {seed}.png", picture(seed).resize((90, 60))) for seed in (20, 21, 22)]
    config = AuditConfig(on_leak="warn", features=True, geometry=True, on_scene="fail", cache=None)
    _, look = screen_and_look(samples, DataConfig(source="imagefolder"), config, tmp_path, Coarse())
    monkeypatch.setattr(aligner, "align", lambda *_: Alignment(30, 0.2, 1.0, 9, 0.1))  # all are scenes
    caplog.clear()
    tied = ties.split_tied(samples, config, look, lambda _: SampleTable.of(samples))
    assert caplog.messages == ["audit   0 images have a copy; each of 0 sets of copies is in one split."]
    reports = []
    for copies in (None, tied.copies):
        caplog.clear()
        found = audit_splits(tied.samples, config, tmp_path, look, tied=True, copies=copies).findings
        reports.append((found, [re.sub(r"in [\d.]+ s", "", line) for line in caplog.messages]))
        monkeypatch.setattr("ftexp.audit.audit.find_copies", None)  # calling it would be a TypeError
    assert reports[0] == reports[1]
    assert {one.kind for one in reports[0][0]} == {"same_scene"}
    assert "3 images with a side under 64 px are not aligned" in reports[0][1][0]


def assert_pairs(samples: list[Sample], sets: dict[str, str]) -> None:
    assert {Path(path).name for path in sets} == {"1.png", "turned.png", "3.png", "oblique.png"}
    assert sets[samples[1].path] == sets[samples[6].path] != sets[samples[3].path] == sets[samples[7].path]


@pytest.mark.parametrize("moves", [True, False], ids=["splits of ours", "a split that is kept"])
def test_copies_that_nearer_images_hide_are_tied_when_two_splits_share_them(
    samples: list[Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    moves: bool,
) -> None:
    caplog.set_level("INFO", "ftexp")
    config = AuditConfig(on_leak="fail", features=True, geometry=True, on_scene="warn", cache=None)
    _, look = screen_and_look(samples, DataConfig(source="imagefolder"), config, tmp_path, Coarse())
    monkeypatch.setattr(ties, "find_aligned", lambda *_: Alignments([], []))
    told: list[dict[str, str]] = []

    def assign(sets: Mapping[str, str]) -> SampleTable:
        told.append(dict(sets))
        together = {sample.path: "train" for sample in samples if moves and sample.path in sets}
        return SampleTable.of([replace(one, split=together.get(one.path, one.split)) for one in samples])

    tied = ties.split_tied(samples, config, look, assign)
    assert told == [{}, tied.sets]
    assert_pairs(samples, tied.sets)
    assert (len({one.split for one in tied.samples if one.path in tied.sets}) == 1) is moves
    assert ("except for 2 that the data's own test split has a part of" in caplog.text) is not moves


def opened(file: Path) -> Image.Image:
    return Image.open(file).convert("RGB")


def test_views_have_fingerprints_of_their_own(samples: list[Sample], tmp_path: Path) -> None:
    cache, without = FingerprintCache(tmp_path / "cache.sqlite"), Coarse()
    without.views = False
    assert [one.views.size for one in fingerprints_of(samples, without, cache)] == [0] * len(samples)
    assert all(one.views.shape == (2, 192) for one in fingerprints_of(samples, Coarse(), cache))
    assert edited_copies(samples, fingerprints_of(samples, without, cache), cache) == []


def test_geometry_needs_features() -> None:
    for features in (False, True):
        config = AuditConfig(on_leak="fail", features=features, geometry=None, on_scene="warn", cache=None)
        assert config.aligns == features
    with pytest.raises(ConfigError, match=r"audit\.geometry=True.*audit\.features=false"):
        AuditConfig(on_leak="fail", features=False, geometry=True, on_scene="warn", cache=None)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_edited_photographs_are_found_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """40 copies of each kind among 2,000 flowers; and pairs of different flowers with the same thing on both."""
    caplog.set_level(logging.ERROR)
    files = sorted(real_images("flowers").rglob("*.jpg"))
    order = iter(np.random.default_rng(0).permutation(len(files)))
    samples, pairs = [Sample(str(file), "a", "train") for file in files], {}
    for kind, edit in EDITS.items():
        for number in range(40):
            file = files[next(order)]
            sample = save(tmp_path, f"{kind} {number}.jpg".replace("/", " "), edit(opened(file)), "val")
            samples.append(sample)
            pairs[str(file), sample.path] = kind
    overlaid = []
    for kind, overlay in OVERLAYS.items():
        for number in range(40):
            for split in ("train", "val"):
                name = f"{kind} {number} {split}.jpg"
                samples.append(save(tmp_path, name, overlay(opened(files[next(order)])), split))
            overlaid.append((samples[-2].path, samples[-1].path))
    prints = fingerprints_of(samples, PretrainedFeatures(torch.device("cpu"), views=True), NO_CACHE, 2)
    near = find_near_duplicates(samples, prints)
    findings = [*near, *edited_copies(samples, prints, known=near)]
    copies = {(one.path_a, one.path_b) for one in findings if one.kind != "same_scene"}
    hits = {kind: np.mean([pair in copies for pair, of in pairs.items() if of == kind]) for kind in EDITS}
    print(hits)
    assert min(hits.values()) >= 0.95, hits
    listed = {(one.path_a, one.path_b) for one in findings}
    assert [pair for pair in overlaid if pair in listed] == []


def test_where_the_time_is_limited_the_pairs_that_are_left_are_counted(
    drawn: list[Sample], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One pair at a time, by a clock that goes on by a second whenever it is asked."""
    prints, pairs = fingerprints_of(drawn, None, NO_CACHE, 2), np.array([(0, 2), (1, 6), (0, 4)])
    cache = FingerprintCache(tmp_path / "cache.sqlite")
    monkeypatch.setattr(aligner, "PAIRS_AT_ONCE", 1)
    for until, found, left in ((12.0, [(1, 6)], 1), (10.0, [], 3), (math.inf, [(1, 6)], 0)):
        clock = iter(range(10, 100))
        monkeypatch.setattr(aligner, "time", SimpleNamespace(monotonic=lambda clock=clock: next(clock)))
        caplog.clear()
        aligned = align_pairs(drawn, prints, pairs, Effort(cache, until)).fitting
        assert [(one.first, one.second) for one in aligned] == found
        warned = [message for message in caplog.messages if "max_minutes" in message]
        assert len(warned) == (left > 0)
        assert not left or f"edited copies: {left} of 3 pairs of pictures were not aligned" in warned[0]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["flowers", "hymenoptera", "bccd_cells", "sign_digits"])
def test_pictures_of_one_class_are_no_copies(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    """2,000 random pairs; without common points, four hands before one wall are taken for copies."""
    caplog.set_level(logging.ERROR)
    by_class: dict[str, list[Path]] = {}
    for file in sorted(real_images(folder).rglob("*.jpg")):
        by_class.setdefault(file.parent.name, []).append(file)
    rng, files = np.random.default_rng(0), [file for one in by_class.values() for file in one]
    number, drawn = {file: index for index, file in enumerate(files)}, set()
    while len(drawn) < 2000:
        members = by_class[files[rng.integers(len(files))].parent.name]
        first, second = sorted(number[members[i]] for i in rng.choice(len(members), 2, replace=False))
        drawn.add((first, second))
    used = sorted({index for pair in drawn for index in pair})
    samples = [Sample(str(files[index]), "a") for index in used]
    pairs = [(used.index(first), used.index(second)) for first, second in sorted(drawn)]
    prints = fingerprints_of(samples, None, NO_CACHE, 2)
    alike = likeness(*(torch.from_numpy(prints.thumbnails([pair[side] for pair in pairs])) for side in (0, 1)))
    verdict = {
        (one.first, one.second): one.alignment.verdict
        for one in align_pairs(samples, prints, np.array(pairs), Effort(NO_CACHE)).fitting
    }
    verdicts = {
        (Path(samples[i].path).name, Path(samples[j].path).name): (verdict.get((i, j)), round(float(score), 3))
        for (i, j), score in zip(pairs, alike, strict=True)
        if (i, j) in verdict or score >= MIN_LIKENESS
    }
    print(folder, verdicts)
    assert [pair for pair, (verdict, score) in verdicts.items() if verdict == "edited" or score >= MIN_LIKENESS] == []
