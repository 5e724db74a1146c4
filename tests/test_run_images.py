"""A resumed run recognises its images by their content, even if the files were moved or renamed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Compose
from PIL import Image
from tiny_runs import identity_of, resumed
from workplaces import Workplace, curve, workplace

from ftexp import run_identity
from ftexp.config import Config
from ftexp.data.digests import ContentDigests
from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits, assign_splits, build_splits
from ftexp.data_identity import DataIdentity
from ftexp.errors import CheckpointError, DataError, InterruptedRunError
from ftexp.run import run
from ftexp.run_images import as_they_were, images_of, read_images, write_images
from ftexp.training.step import Step

__all__ = ["workplace"]


def sample(path: str, grey: int, label: str = "a", split: str | None = None) -> Sample:
    return Sample(path=path, label=label, split=split, pixels=np.full((4, 4, 3), grey, np.uint8))


SAMPLES = [sample(f"old/{i:02d}", i // 2, "ab"[i % 2]) for i in range(24)]  # every image twice, in two classes


def cut(samples: list[Sample], config: Config) -> Splits:
    return build_splits(assign_splits(samples, config.data))


def contents(splits: Splits) -> list[tuple[str, ...]]:
    return [image[1:] for image in images_of(splits)]


def test_order_and_splits_stay_where_files_have_other_names(configure: Compose, tmp_path: Path) -> None:
    config = configure("audit.on_leak=off")
    before = cut(SAMPLES, config)
    write_images(tmp_path, images_of(before))
    known = read_images(tmp_path)
    assert list(known) == list(images_of(before))
    names = [f"new/{i:02d}" for i in range(24)]
    random.Random(0).shuffle(names)
    moved = [replace(one, path=name) for one, name in zip(SAMPLES, names, strict=True)]
    assert contents(cut(moved, config)) != contents(before), "else there is nothing to put back"
    restored = build_splits(as_they_were(assign_splits(moved, config.data), known, ContentDigests()))
    assert contents(restored) == contents(before)
    assert {one.path for one in (*restored.train, *restored.val)} <= set(names)
    begun, now = DataIdentity.of(before), DataIdentity.of(restored)
    begun.check(now)
    now.check(DataIdentity.of(before))  # and once more, from there


def test_files_in_their_place_are_not_read_again(configure: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure()
    assigned = assign_splits(SAMPLES, config.data)
    known = images_of(build_splits(assigned))
    monkeypatch.setattr(ContentDigests, "of", lambda *_: pytest.fail("nothing has changed"))
    assert as_they_were(assigned, known, ContentDigests()) is assigned


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda samples: samples.pop(), r"1 images are not those the run began with: old/23\. Put them back"),
        (lambda samples: samples.append(sample("new/x", 99)), r"1 images are not those the run began with: new/x\."),
        (lambda samples: samples.append(replace(samples.pop(), label="a")), r"Labels or splits are not those"),
    ],
)
def test_other_images_or_labels_are_refused_at_any_place(
    configure: Compose, change: Callable[[list[Sample]], object], message: str
) -> None:
    config = configure()
    begun = DataIdentity.of(cut(SAMPLES, config))
    samples = list(SAMPLES)
    change(samples)
    assigned = as_they_were(assign_splits(samples, config.data), begun.images, ContentDigests())
    with pytest.raises(DataError, match=message):
        begun.check(DataIdentity.of(build_splits(assigned)))


def test_runs_of_0_1_0_know_their_images_by_their_paths(configure: Compose) -> None:
    config = configure()
    known = DataIdentity.of(cut(SAMPLES, config))
    paths = [image._replace(label="", split="") for image in known.images if image.split != "test"]
    begun = replace(known, images=paths)
    begun.check(DataIdentity.of(cut(SAMPLES, config)))
    moved = cut([replace(one, path=one.path.replace("old", "new")) for one in SAMPLES], config)
    with pytest.raises(DataError, match=r"images are not those the run began with: new/"):
        begun.check(DataIdentity.of(moved))


def test_only_the_place_of_the_images_may_differ(configure: Compose) -> None:
    facts = ("data=manifest", "data.label_column=x")
    begun = identity_of(configure(*facts, "data.file=a.csv", "data.root=here"), cut(SAMPLES, configure()))
    begun.check_settings(configure(*facts, "data.file=b.csv", "data.root=there"), force=False)
    with pytest.raises(run_identity.ConfigError, match=r"data\.path_column: path -> file"):
        begun.check_settings(configure(*facts, "data.file=b.csv", "data.path_column=file"), force=False)
    facts = ("data=webdataset",)
    begun = identity_of(configure(*facts, "data.shards=a.tar", "data.index=here"), cut(SAMPLES, configure()))
    begun.check_settings(configure(*facts, "data.shards=b.tar", "data.index=null"), force=False)
    with pytest.raises(run_identity.ConfigError, match=r"data\.label_key: None -> x"):
        begun.check_settings(configure(*facts, "data.shards=b.tar", "data.label_key=x"), force=False)


def manifest(root: Path, file: Path) -> None:
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
    random.Random(1).shuffle(rows)
    file.write_text("\n".join(["path,label", *rows]))


def split_folders(root: Path) -> None:
    for path in sorted(root.rglob("*.png")):
        split = ("train", "val", "test")[min(int(path.stem) // 2, 2)]
        (root / split / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.rename(root / split / path.parent.name / path.name)
    for path in root.iterdir():
        if path.name not in ("train", "val", "test"):
            path.rmdir()


@pytest.mark.parametrize("source", ["folder", "given", "manifest"])
def test_a_run_whose_images_were_moved_and_renamed_ends_to_the_bit_as_if_they_were_not(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    here = workplace.folder
    old, new = "data.root=base", "data.root=else/where"
    if source == "given":
        split_folders(here / "base")
    if source == "manifest":
        manifest(here / "base", here / "base.csv")
        old, new = "data.file=base.csv", "data.file=else.csv"
    kind = ("data=manifest", "data.root=base") if source == "manifest" else ()
    expected = workplace.run(*kind, old)
    folder, left, update = here / "moved", iter(range(3)), Step.update

    def stopped(step: Step) -> object:
        if next(left, None) is None:
            raise InterruptedRunError(15)
        return update(step)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "update", stopped)
        with pytest.raises(InterruptedRunError):
            run(workplace.begin(*kind, old), folder)
    (here / "else").mkdir()
    shutil.move(here / "base", here / "else" / "where")
    for number, path in enumerate(sorted((here / "else" / "where").rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"renamed{number:02d}.png"))
    manifest(here / "else" / "where", here / "else.csv")
    before = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    config = resumed(workplace.begin(*kind, "data.root=else/where", new), folder)
    victim = next((here / "else" / "where").rglob("*.png"))
    content = victim.read_bytes()
    Image.new("RGB", (64, 64)).save(victim)
    with pytest.raises(DataError, match="2 images are not those the run began with"):
        run(config, folder)
    assert {path.name: path.read_bytes() for path in folder.glob("*.csv")} == before
    victim.write_bytes(content)
    run(config, folder)
    assert curve(folder) == expected
    assert json.loads((folder / "run.json").read_text())["config"]["data"]["root"] == "else/where"


def test_a_run_without_its_list_of_images_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"digests\.csv, which lists the images .* is missing. Put it back, or"):
        read_images(tmp_path)
