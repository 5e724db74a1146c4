"""One pass of the frozen network over train and val."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import Compose
from PIL import Image
from small_pictures import SETTINGS, small_pictures, tiny_network

from ftexp.audit import ties
from ftexp.data.samples import Sample
from ftexp.frozen_features import compute_features, read_images
from ftexp.models.prefix import Prefix
from ftexp.preparation.read_data import read_data

__all__ = ["small_pictures"]

OVERRIDES = [text for text in SETTINGS if not text.startswith("hydra.")]


def test_features_are_what_enters_the_last_layer_of_train_and_val_alone(
    small_pictures: Path,
    configure: Compose,
) -> None:
    features, splits = compute_features(configure(*OVERRIDES), small_pictures)
    assert features.values.shape == (len(splits.train) + len(splits.val), 6)
    assert [s.path for s in (*splits.train, *splits.val)] == [s.path for s in features.samples]
    assert {sample.split for sample in features.samples} == {"train", "val"}
    assert splits.test.num_samples == 4
    assert [features.classes[label] for label in features.labels.tolist()] == [s.label for s in features.samples]
    network = tiny_network().module.eval()
    image = Image.open(features.samples[0].path).resize((8, 8), Image.Resampling.BILINEAR, reducing_gap=None)
    entering: list[torch.Tensor] = []
    network.fc.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(127.5).sub(1)
    with torch.no_grad():
        network(pixels[None])
    torch.testing.assert_close(features.values[:1], entering[0], atol=0.02, rtol=0)


def test_a_second_pass_computes_nothing(
    small_pictures: Path,
    configure: Compose,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    first, _ = compute_features(configure(*OVERRIDES), small_pictures)
    assert "the activations before head were computed once" in caplog.text
    monkeypatch.setattr(Prefix, "__call__", None)  # calling it would be a TypeError
    second, _ = compute_features(configure(*OVERRIDES, "train.batch_size=auto"), small_pictures)
    assert torch.equal(first.values, second.values)
    assert "of these images were cached" in caplog.text


def test_a_copy_is_in_the_group_of_its_original(
    small_pictures: Path,
    configure: Compose,
) -> None:
    shutil.copy("base/ape/0.png", "base/ape/copy.png")
    for split, names in (("train", ("0", "1", "2", "copy")), ("val", ("3", "4")), ("test", ("5",))):
        for label in ("ape", "bee"):
            for name in names:
                if (source := Path(f"base/{label}/{name}.png")).exists():
                    (target := Path("cut") / split / label).mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, target)
    Path("cut/train/ape/copy.png").rename("cut/val/ape/copy.png")
    features, _ = compute_features(configure(*OVERRIDES, "data.root=cut"), small_pictures)
    paths = [Path(sample.path).relative_to("cut").as_posix() for sample in features.samples]
    group = dict(zip(paths, features.groups.tolist(), strict=True))
    assert group["train/ape/0.png"] == group["val/ape/copy.png"]
    assert features.num_groups == len(features.samples) - 1


def test_tied_copies_are_split_as_in_a_run(
    small_pictures: Path, configure: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edited copies among them, which are found only by aligning pictures."""
    device, settings = torch.device("cpu"), (*OVERRIDES, "audit.on_leak=off")
    plain = read_images(configure(*settings), small_pictures, device).splits
    pair = {next(sample.path for sample in plain.train), next(row["path"] for row in plain.test.listing())}

    def find_aligned(samples: Sequence[Sample], *_: object) -> SimpleNamespace:
        first, second = (number for number, sample in enumerate(samples) if sample.path in pair)
        edited = SimpleNamespace(first=first, second=second, alignment=SimpleNamespace(verdict="edited"))
        return SimpleNamespace(fitting=[edited], notes=[])

    monkeypatch.setattr(ties, "find_aligned", find_aligned)
    config, table = configure(*settings, "data.tie_duplicates=true"), small_pictures / "splits.csv"
    read_data(config, small_pictures, device)
    of_a_run = table.read_text()
    images = read_images(config, small_pictures, device)
    assert table.read_text() == of_a_run
    assert images.ties.keys() == pair
    assert len(set(images.ties.values())) == 1
    train, val = ({sample.path for sample in split} for split in (images.splits.train, images.splits.val))
    assert any(pair <= paths for paths in (train, val, {row["path"] for row in images.splits.test.listing()}))
