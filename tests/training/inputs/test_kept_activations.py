"""Cached activations of the frozen prefix in later runs, and cached views of an image."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
import torch
from conftest import Compose
from tiny_runs import SMALL, colours, curve, fit, subfolder

from ftexp.data.loading.tensor_file import TensorWriter
from ftexp.data.loading.tensor_store import Append, TensorStore
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.training.inputs.activation_batches import ActivationBatches

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def splits() -> Splits:
    return Splits(colours(44, seed=1), colours(21, seed=2), TestSplit(colours(10, seed=3)), ("b", "g", "r", "x"))


def test_a_second_run_finds_the_activations_of_the_first_and_gives_the_same_curve(
    configure: Compose, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = ("runtime.cache=disk", f"runtime.cache_folder={tmp_path / 'kept'}", "stage=head")
    caplog.set_level("INFO", logger="ftexp")
    first = fit(configure(*SMALL, *kept), splits, subfolder(tmp_path, "first"))
    assert "were computed once" in caplog.text
    caplog.clear()
    second = fit(configure(*SMALL, *kept), splits, subfolder(tmp_path, "second"))
    assert "of these images were cached" in caplog.text
    assert curve(first) == curve(second)


@pytest.mark.parametrize("change", ["image", "order", "weights", "preprocessing"])
def test_anything_that_changes_the_activations_changes_the_key(
    configure: Compose, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    kept = ("runtime.cache=disk", f"runtime.cache_folder={tmp_path / 'kept'}", "stage=head", "stage.epochs=1")
    fit(configure(*SMALL, *kept), splits, subfolder(tmp_path, "first"))
    before = {file.name for file in (tmp_path / "kept").glob("*.safetensors")}
    assert len(before) == 2
    if change == "image":
        assert splits.train[3].pixels is not None
        splits.train[3].pixels[0, 0, 0] ^= 1
    elif change == "order":
        splits.train.reverse()
    else:
        import tiny_runs

        original = tiny_runs.fresh_network

        def changed() -> object:
            network = original()
            if change == "weights":
                network.module.stem[1].running_mean[0] += 1e-3
            else:
                network.preprocessing = network.preprocessing.at(16)
            return network

        monkeypatch.setattr(tiny_runs, "fresh_network", changed)
    fit(configure(*SMALL, *kept), splits, subfolder(tmp_path, "second"))
    added = {file.name for file in (tmp_path / "kept").glob("*.safetensors")} - before
    # Train and validation have a file each; only a change of the network concerns both.
    assert len(added) == (1 if change in ("image", "order") else 2)


LIGHT = (*SMALL, "augment=light", "stage.epochs=5")


@pytest.mark.parametrize("stage", ["head", "partial"])
def test_kept_views_give_the_same_curve_to_the_bit_as_fresh_images(
    configure: Compose, splits: Splits, tmp_path: Path, stage: str
) -> None:
    for views in (1, 3):
        cached, plain = (
            fit(
                configure(*LIGHT, f"stage={stage}", f"augment.views={views}", f"runtime.cache={cache}"),
                splits,
                subfolder(tmp_path, f"{views} {cache}"),
            )
            for cache in ("memory", "off")
        )
        assert curve(cached) == curve(plain)


def test_views_repeat_after_their_number_and_differ_among_themselves(
    configure: Compose, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums: dict[int, float] = {}
    original = ActivationBatches.epoch

    def epoch(self: ActivationBatches, epoch: int, start: int = 0) -> object:
        batches = list(original(self, epoch, start))
        if self.num_samples == 44:
            # Of activations in double precision: the order of the samples does not matter.
            sums[epoch] = round(sum(inputs.double().sum().item() for inputs, _ in batches), 6)
        return iter(batches)

    monkeypatch.setattr(ActivationBatches, "epoch", epoch)
    fit(configure(*LIGHT, "stage=head", "augment.views=2"), splits, tmp_path)
    assert sums[1] == sums[3] == sums[5] != sums[2] == sums[4]


def test_a_second_run_finds_the_views_of_the_first(
    configure: Compose, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = ("runtime.cache=disk", f"runtime.cache_folder={tmp_path / 'kept'}", "stage=head", "augment.views=2")
    caplog.set_level("INFO", logger="ftexp")
    first = fit(configure(*LIGHT, *kept), splits, subfolder(tmp_path, "first"))
    assert caplog.text.count("the activations of the frozen blocks were computed") == 2
    caplog.clear()
    second = fit(configure(*LIGHT, *kept), splits, subfolder(tmp_path, "second"))
    assert caplog.text.count("the activations of the frozen blocks were cached") == 2
    assert curve(first) == curve(second)
    caplog.clear()
    fit(configure(*LIGHT, *kept, "runtime.seed=1"), splits, subfolder(tmp_path, "third"))
    assert caplog.text.count("the activations of the frozen blocks were computed") == 2, "other draws are other views"


def test_auto_keeps_eight_views_or_as_many_as_epochs_or_none(
    configure: Compose, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A view of 44 images takes 44 x 4 x 8 x 8 x 4 bytes before the body, the validation images 21 of these 44."""
    view = 44 * 4 * 8 * 8 * 4
    caplog.set_level("INFO", logger="ftexp")
    off = "cache   off: the activations before body would take"
    for epochs, fitting, expected in ((9, 8.1, "8 views"), (9, 7.9, off), (5, 5.1, "5 views")):
        caplog.clear()
        gib = (fitting + 21 / 44) * view / 2**30
        config = configure(
            *LIGHT, "stage=partial", f"stage.epochs={epochs}", "augment.views=auto", f"runtime.cache_gib={gib}"
        )
        fit(config, splits, subfolder(tmp_path, str(fitting)))
        assert expected in caplog.text


@pytest.mark.parametrize("fails_at", [0, 1, 3])
def test_where_activations_cannot_be_kept_the_curve_is_the_same(
    configure: Compose,
    splits: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fails_at: int,
) -> None:
    settings = (*SMALL, "stage=head", "stage.epochs=4", "augment=light", "augment.views=3")
    expected = fit(configure(*settings, "runtime.cache=memory"), splits, subfolder(tmp_path, "memory"))
    finish, finished = TensorWriter.finish, []

    def full(self: TensorWriter, *args: object) -> object:
        finished.append(self)
        if len(finished) > fails_at:  # the views of validation and of the first epochs fit
            raise OSError(28, "No space left on device")
        return finish(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(TensorWriter, "finish", full)
    kept = ("runtime.cache=disk", f"runtime.cache_folder={tmp_path / 'kept'}")
    result = fit(configure(*settings, *kept), splits, subfolder(tmp_path, "full"))
    for found, wanted in zip(curve(result), curve(expected), strict=True):
        assert found == pytest.approx(wanted, abs=1e-6)
    assert caplog.text.count("No space left on device") == 1
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == fails_at


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes pages back at once")
def test_of_many_images_no_more_is_in_memory_than_of_few(tmp_path: Path) -> None:
    """Pages that were read are given back after every batch."""

    def fill(append: Append) -> dict[str, torch.Tensor]:
        for _ in range(64):
            append(torch.ones(64, 16384))  # 4 MiB
        return {}

    kept = TensorStore(tmp_path, 1).get("a", fill)
    process = psutil.Process()
    before = process.memory_info().rss
    for start in range(0, 4096, 64):
        kept.rows.index_select(0, torch.arange(start, start + 64))
        kept.release()
    assert process.memory_info().rss - before < 64 * 2**20, "of 256 MiB that were read"
