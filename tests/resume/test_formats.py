"""Files of runs of other versions of ftexp: older ones are resumed, newer ones are refused with their format number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Compose
from resumable_runs import VARIANTS, run, splits
from tiny_runs import identity_of, resumed

from ftexp.data_identity import DataIdentity
from ftexp.errors import CheckpointError, ConfigError, FormatError
from ftexp.finetune.recipe import Decision
from ftexp.preparation import prepare
from ftexp.run_identity import RunIdentity
from ftexp.training.checkpoints.checkpoint import FORMAT, LAST, load_checkpoint, read_last

pytestmark = pytest.mark.usefixtures("no_pictures")

# Of a run of VARIANTS["staged"] that was stopped in the middle of its ninth epoch, in the second phase, written before
# files had a format number.
BEFORE_FORMATS = Path(__file__).parent / "before_formats"


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    shutil.copytree(BEFORE_FORMATS, tmp_path / "run" / "checkpoints")
    return tmp_path / "run"


def rewritten(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)


def test_a_run_from_before_format_numbers_is_resumed(configure: Compose, old_run: Path) -> None:
    before = load_checkpoint(old_run / "checkpoints" / LAST)
    assert "format" not in before
    ended = run(configure(*VARIANTS["staged"], "train.nan_retries=1"), old_run)
    history = json.loads(before["run"]["history"])
    assert [record.train_loss for record in ended.history[:8]] == [record["train_loss"] for record in history]
    assert [record.epoch for record in ended.history] == list(range(1, 19))
    assert load_checkpoint(old_run / "checkpoints" / LAST)["format"] == FORMAT
    assert load_checkpoint(old_run / "checkpoints" / "best.pt")["format"] == FORMAT


def test_means_of_batches_become_totals_and_weights(old_run: Path) -> None:
    file = old_run / "checkpoints" / LAST
    before, now = (read(file)["phase"]["sums"] for read in (partial(torch.load, weights_only=True), load_checkpoint))
    assert now["weights"] == before["sizes"] == [8, 8, 8, 8]
    assert [total / 8 for total in now["totals"]] == before["losses"]
    assert now["norms"] == before["norms"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (FORMAT + 1, rf"last.pt has format {FORMAT + 1}, and ftexp \S+ reads formats up to {FORMAT}.*Update ftexp"),
        ("x", r"last.pt has the unknown format 'x'"),
        (0, r"last.pt has the unknown format 0"),
        (True, r"last.pt has the unknown format True"),
    ],
)
def test_a_checkpoint_of_another_format_is_refused_and_not_passed_over_for_an_older_one(
    old_run: Path, number: object, message: str
) -> None:
    folder = old_run / "checkpoints"
    shutil.copy(folder / LAST, folder / "previous.pt")
    rewritten(folder / LAST, lambda content: content.update(format=number))
    with pytest.raises(FormatError, match=message):
        read_last(folder)


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    for content in ({"weight": torch.zeros(2)}, torch.zeros(2)):
        torch.save(content, tmp_path / "best.pt")
        with pytest.raises(FormatError, match=r"best.pt is not a checkpoint of ftexp"):
            load_checkpoint(tmp_path / "best.pt")


def change_history(content: dict[str, Any]) -> None:
    history = json.loads(content["run"]["history"])
    content["run"]["history"] = json.dumps([{**record, "entropy": 1.0} for record in history])


@pytest.mark.parametrize(
    "change",
    [
        change_history,
        lambda content: content["run"].pop("best"),
        lambda content: content["run"]["best"]["record"].update(entropy=1.0),
        lambda content: content["run"]["best"].pop("loss"),
        lambda content: content.pop("phase"),
        lambda content: content.update(phase=None),
        lambda content: content["phase"]["sums"].pop("norms"),
        lambda content: content["phase"].pop("ema"),
        lambda content: content["phase"].update(epochs_done="two"),
        lambda content: content["run"].update(phase_number=9),
        lambda content: content["preprocessing"].update(image_size=None),
        lambda content: content["preprocessing"].update(interpolation="none"),
    ],
)
def test_a_field_too_many_too_few_or_of_another_kind_is_a_message_that_names_the_file(
    configure: Compose, old_run: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    rewritten(old_run / "checkpoints" / LAST, change)
    with pytest.raises(FormatError, match=r"last.pt has other fields than ftexp \S+ reads.*run.json"):
        run(configure(*VARIANTS["staged"], "train.nan_retries=1"), old_run)


def test_weights_and_groups_that_do_not_fit_are_a_message_too(configure: Compose, old_run: Path) -> None:
    config = configure(*VARIANTS["staged"], "train.nan_retries=1")
    file = old_run / "checkpoints" / LAST
    rewritten(file, lambda content: content["phase"]["groups"].reverse())
    with pytest.raises(CheckpointError, match="other parameter groups than this version makes"):
        run(config, old_run)
    rewritten(file, lambda content: content["model"].pop("token"))
    with pytest.raises(CheckpointError, match=r"The weights in .*last.pt do not fit tiny.*token.*run.json"):
        run(config, old_run)


def identity(configure: Compose, folder: Path, change: Callable[[dict[str, Any]], object]) -> RunIdentity:
    identity_of(configure(), splits()).write(folder)
    facts = json.loads((folder / "run.json").read_text())
    change(facts)
    (folder / "run.json").write_text(json.dumps(facts))
    return RunIdentity.read(folder)


def test_run_json_from_before_there_were_format_numbers_is_read(configure: Compose, tmp_path: Path) -> None:
    begun = identity(configure, tmp_path, lambda facts: (facts.pop("format"), facts.pop("engine")))
    assert begun.engine is None
    begun.check_settings(configure(), force=False)
    begun.data.check(DataIdentity.of(splits()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.update(format=facts["format"] + 1), r"run.json has format \d+, .*Update ftexp"),
        (lambda facts: facts.update(format="1"), r"run.json has the unknown format '1'"),
        (lambda facts: facts.update(folds=3), r"run.json has other fields than ftexp \S+ reads.*folds"),
        (lambda facts: facts.pop("split_digest"), r"run.json has other fields.*split_digest"),
        (lambda facts: facts.update(versions=None), r"run.json has other fields.*NoneType"),
    ],
)
def test_run_json_of_another_version_is_refused(
    configure: Compose, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        identity(configure, tmp_path, change)


def test_damage_to_the_files_of_a_run_is_named(configure: Compose, tmp_path: Path) -> None:
    identity_of(configure(), splits()).write(tmp_path)
    (tmp_path / "digests.csv").write_text("file,digest\nt,1\n")
    with pytest.raises(FormatError, match=r"digests.csv has other fields.*path"):
        RunIdentity.read(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 1, ')
    with pytest.raises(CheckpointError, match=r"run.json is damaged or cannot be read"):
        RunIdentity.read(tmp_path)


def test_a_run_from_before_there_was_auto_keeps_its_numbers(configure: Compose) -> None:
    before = ("optimizer.head_lr=0.02", "optimizer.backbone_lr=0.01", "optimizer.block_decay=1.0", "stage.epochs=4")
    rest = ("optimizer.weight_decay=0.5", "data=digits")
    begun = replace(identity_of(configure(*before, *rest), splits()), decided=None)
    now = configure("stage.epochs=auto", "data=digits")
    begun.check_settings(now, force=False)
    reason = "as the run began with it"
    assert Decision("optimizer.head_lr", 0.02, reason) in begun.decisions(now)
    assert Decision("stage.phases.0.epochs", 4, reason) in begun.decisions(now)
    assert replace(begun, decided=[]).decisions(now) == []


def test_digests_are_written_whole_or_not_at_all(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity_of(configure(), splits()).write(tmp_path)
    begun = identity_of(configure(), splits())
    begun = replace(begun, data=replace(begun.data, images=[]))
    monkeypatch.setattr("ftexp.run_images.csv.writer", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        begun.write(tmp_path)
    assert [image.path for image in RunIdentity.read(tmp_path).data.images] == ["t", "u", "v", "w"]


def test_other_versions_are_warned_of_and_named(
    configure: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = identity(configure, tmp_path, lambda facts: facts["versions"].update(gone="1.0"))
    begun.warn_of_versions()
    assert not caplog.messages, "nothing that is compared has changed"
    timm = begun.versions["timm"]
    begun.versions.update(timm="1.0.20", python="3.11.1")
    begun.warn_of_versions()
    (message,) = caplog.messages
    assert f"timm 1.0.20 -> {timm}" in message
    assert "python 3.11.1 -> 3." in message
    assert "torch" not in message


def test_a_setting_that_the_earlier_version_did_not_have_does_not_stop_a_run(
    configure: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def without(facts: dict[str, Any]) -> None:
        del facts["config"]["train"]["wise_ft"]
        del facts["config"]["stage"]["phases"][0]["lr_factor"]

    begun = identity(configure, tmp_path, without)
    begun.check_settings(configure(), force=False)
    assert [message.split("=")[0] for message in caplog.messages] == [
        "resume  stage.phases.0.lr_factor",
        "resume  train.wise_ft",
    ]
    with pytest.raises(ConfigError, match=r"optimizer.head_lr: auto -> 0.5\n  stage.phases"):
        begun.check_settings(configure("optimizer.head_lr=0.5"), force=False)


@pytest.mark.parametrize(
    ("began", "now"),
    [
        (("optimizer.block_lrs={stem: 0.1}",), ("optimizer.block_lrs={stem: 0.1, body: 0.2}",)),
        (("stage=head",), ("stage=staged", "stage.epochs=12")),
        ((), ("optimizer=sgd",)),
    ],
)
def test_what_was_added_by_the_user_is_no_setting_of_a_newer_version(
    configure: Compose, began: tuple[str, ...], now: tuple[str, ...]
) -> None:
    begun = identity_of(configure(*began), splits())
    with pytest.raises(ConfigError, match="The run began with other settings"):
        begun.check_settings(configure(*now), force=True)


def test_resuming_a_run_compares_its_versions(
    configure: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    identity(configure, tmp_path, lambda facts: facts["versions"].update(torch="1.0"))
    begun = prepare._begun(resumed(configure(), tmp_path), tmp_path)
    assert begun is not None
    assert begun.versions["torch"] == "1.0"
    assert [message for message in caplog.messages if "torch 1.0 ->" in message]
