"""``python -m ftexp.cross_validate real_folds=true``: a run for every fold, of a tiny network."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from conftest import CommandLine, Compose
from workplaces import draw_noise

from ftexp import progress_lines, real_folds
from ftexp.cross_validate import main
from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import build_splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.frozen_features import Images
from ftexp.inference.load import newest_finished
from ftexp.probe.cross_validation import FoldScores
from ftexp.probe.features import Features

SETTINGS = (
    "model=timm",
    "model.name=test_efficientnet",
    "model.weights=null",
    "model.image_size=32",
    "data=imagefolder",
    "data.root=base",
    "tracking=none",
    "runtime.device=cpu",
    "runtime.workers=0",
    "runtime.cache=memory",
    "train.batch_size=4",
    "audit.features=false",
    "hydra.run.dir=out",
    "stage.epochs=1",
    "probe.folds=2",
    "real_folds=true",
)


def rows(file: str) -> list[dict[str, str]]:
    with Path(file).open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture
def place(command_line: CommandLine, tmp_path: Path, no_pictures: None) -> CommandLine:
    draw_noise(tmp_path / "base")
    return command_line


def test_every_fold_is_trained_by_the_stage_and_scored_once(
    place: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sealed(_: TestSplit) -> None:
        raise AssertionError("the test split was opened")

    monkeypatch.setattr(TestSplit, "take_samples", sealed)
    monkeypatch.setattr(progress_lines, "SECONDS_BETWEEN", 0)
    monkeypatch.setattr(progress_lines, "PART_BETWEEN", 0)
    kept: list[FoldScores] = []
    trained_folds = real_folds.train_folds
    monkeypatch.setattr(real_folds, "train_folds", lambda *given: kept.extend(r := trained_folds(*given)) or r)
    ended = place(*SETTINGS, "probe.repeats=2", "stage=partial", entry=main)
    assert ended.returncode == 0, ended.stderr
    assert [one.scores.logits is None for one in kept] == [True] * 4  # no metric that is told needs them
    content = json.loads(Path("out/cross_validation.json").read_text())
    assert content["scored"] == "stage=partial, a run for every fold"
    assert (content["folds"], content["repeats"], content["images"]) == (2, 2, 20)  # 4 of 24 are test
    assert content["metrics"]["accuracy"]["low"] <= content["metrics"]["accuracy"]["value"]
    confusion = rows("out/confusion.csv")
    assert sum(int(row[name]) for row in confusion for name in ("ape", "bee", "cow", "emu")) == 40
    assert {"classes.csv", "folds.csv", "confusion_matrix.png"} <= {path.name for path in Path("out").iterdir()}
    own = {row["path"]: row["split"] for row in rows("out/splits.csv")}
    for repeat in (1, 2):
        cuts = [{r["path"]: r["split"] for r in rows(f"out/folds/{repeat}-{fold}/splits.csv")} for fold in (1, 2)]
        held = [{path for path, split in cut.items() if split == "test"} for cut in cuts]
        assert held[0] | held[1] == {path for path, split in own.items() if split != "test"}
        assert not held[0] & held[1]
        assert all({"train", "val"} <= set(cut.values()) for cut in cuts)
    trained = json.loads(Path("out/folds/1-1/result.json").read_text())
    assert [phase["name"] for phase in trained["phases"]] == ["partial"]
    assert trained["test"] is None
    assert "stage=partial, trained for each: accuracy" in ended.stdout
    for number in (1, 2, 3):
        assert f"folds   finished {number} of 4 runs; about" in ended.stdout
    with pytest.raises(Exception, match="No run has finished"):  # a fold is not what "latest" means
        newest_finished(Path("out"))


def test_a_finished_fold_is_not_trained_again(place: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (*SETTINGS, "probe.repeats=1", "stage=head", "head.depth=last")
    begun: list[str] = []
    trained = real_folds.run

    def counted(*given: object, **named: object) -> object:
        if len(begun) == 1:
            raise KeyboardInterrupt
        begun.append(str(given[1]))
        return trained(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(real_folds, "run", counted)
    assert place(*command, entry=main).returncode == 130
    begun[:] = ["", ""]
    ended = place(*command, entry=main)
    assert ended.returncode == 0, ended.stderr
    assert "out/folds/1-1 is finished already" in ended.stdout
    assert [Path(name).name for name in begun] == ["", "", "1-2"]
    ended = place(*command, "loss.label_smoothing=0", entry=main)
    assert ended.returncode == 1
    assert "1-1 is a fold of another cross-validation; use another folder. The run began with other" in ended.stderr
    assert "loss.label_smoothing: 0.1 -> 0" in ended.stderr


def test_a_class_with_too_few_independent_images_is_refused(place: CommandLine) -> None:
    for number in (3, 4, 5):
        Path(f"base/bee/{number}.png").unlink()
    ended = place(*SETTINGS, "data.split=stratified", entry=main)
    assert ended.returncode == 1
    assert "needs 3 independent images of every class" in ended.stderr
    assert "Train and val have fewer of bee" in ended.stderr


def test_val_is_cut_from_few_groups(configure: Compose) -> None:
    """Six groups of ten images, of which three are held out: the other three cannot be cut into six parts."""
    samples = [Sample(f"{i}.png", "abc"[i % 3], "val" if i < 10 else "train") for i in range(60)]
    groups = torch.arange(60) // 10
    images = Images(build_splits(samples), {}, samples, look=None)  # type: ignore[arg-type]
    features = Features(torch.empty(60, 0), torch.arange(60) % 3, groups, samples, ("a", "b", "c"))
    for fold in real_folds._cut(configure("probe.folds=2", "probe.repeats=1"), images, features):
        group_of = [{int(groups[int(s.path[:-4])]) for s in part} for part in (fold.splits.train, fold.splits.val)]
        assert [len(part) for part in (fold.splits.train, fold.splits.val, fold.held)] == [20, 10, 30]
        assert not group_of[0] & group_of[1]
