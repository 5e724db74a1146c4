"""What makes a run this run: settings, classes, images and how they are cut. Only the same run can be gone on with."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ftexp.config import Config, as_data
from ftexp.config.resume import HARMLESS
from ftexp.data.digests import content_digest
from ftexp.data.splits import Splits
from ftexp.errors import CheckpointError, ConfigError, DataError
from ftexp.resume import IDENTITY, LOCK
from ftexp.tracking.params import flatten_data

PACKAGES = ("ftexp", "torch", "torchvision", "timm", "hydra-core", "mlflow-skinny", "optuna")
MAX_NAMED = 8


@dataclass(slots=True)
class RunIdentity:
    """Written as ``run.json`` when a run begins.

    Attributes:
        config: as plain data, without passwords.
        data_digest: of all images and labels; ``split_digest``: of which image is in which split.
        batch_size: in use; the configuration may say ``auto``.
        mlflow_run_id: None until the run is tracked.
    """

    config: dict[str, Any]
    classes: list[str]
    data_digest: str
    split_digest: str
    versions: dict[str, str]
    batch_size: int = 0
    mlflow_run_id: str | None = None
    files: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, config: Config, splits: Splits) -> RunIdentity:
        """Of a run that is about to train; reads every image's file once."""
        samples = [("train", sample) for sample in splits.train] + [("val", sample) for sample in splits.val]
        files = {sample.path: content_digest(sample) for _, sample in samples}
        test = splits.test.content_digest()
        contents = sorted(f"{files[sample.path]} {sample.label}" for _, sample in samples)
        cut = sorted(f"{sample.path} {split}" for split, sample in samples)
        cut += sorted(f"{row['path']} test" for row in splits.test.listing())
        return cls(
            config=json.loads(json.dumps(as_data(config))),
            classes=list(splits.classes),
            data_digest=_digest([*contents, test]),
            split_digest=_digest(cut),
            versions={name: version(name) for name in PACKAGES},
            files=files,
        )

    def write(self, folder: Path) -> None:
        """Leave ``run.json``, and ``digests.csv`` with the content of every training and validation image."""
        facts = {name: value for name, value in asdict(self).items() if name != "files"}
        unfinished = folder / "run.tmp"
        unfinished.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, folder / IDENTITY)
        with (folder / "digests.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "digest"))
            writer.writerows(sorted(self.files.items()))

    @classmethod
    def read(cls, folder: Path) -> RunIdentity:
        """Of the run in this folder."""
        facts = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
        with (folder / "digests.csv").open(newline="", encoding="utf-8") as file:
            files = {row["path"]: row["digest"] for row in csv.DictReader(file)}
        return cls(**facts, files=files)

    def check_settings(self, config: Config, *, force: bool) -> None:
        """Refuse to go on with other settings than the run began with.

        Args:
            force: allow those that change nothing of the result.

        Raises:
            ConfigError: with every difference.
        """
        before, now = flatten_data(self.config), flatten_data(json.loads(json.dumps(as_data(config))))
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        refused = [key for key in changed if not (force and key.startswith(HARMLESS))]
        if not refused:
            return
        listed = "\n".join(f"  {key}: {_show(before, key)} -> {_show(now, key)}" for key in refused)
        harmless = all(key.startswith(HARMLESS) for key in refused)
        advice = "Add resume.force=true to go on all the same" if harmless else "Start a new run for other settings"
        raise ConfigError(f"The run began with other settings:\n{listed}\n{advice}.")

    def check_data(self, now: RunIdentity) -> None:
        """Refuse to go on with other images, classes or splits.

        Raises:
            DataError: naming what is different.
        """
        if now.classes != self.classes:
            raise DataError(f"The run began with the classes {self.classes}; now there are {now.classes}.")
        paths = self.files.keys() | now.files.keys()
        changed = sorted(path for path in paths if self.files.get(path) != now.files.get(path))
        if changed:
            more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
            raise DataError(
                f"{len(changed)} images of train and val are not those the run began with: "
                f"{', '.join(changed[:MAX_NAMED])}{more}. Put them back, or start a new run."
            )
        if (now.data_digest, now.split_digest) != (self.data_digest, self.split_digest):
            raise DataError("Labels, test images or splits are not those the run began with. Start a new run.")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder; the lock goes with the process, however it ends.

    Raises:
        CheckpointError: when another run is at work there.
    """
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout:
        raise CheckpointError(f"Another run is at work in {folder}. Wait for it, or take another folder.") from None


def _digest(lines: list[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _show(settings: Mapping[str, object], key: str) -> object:
    return settings.get(key, "(none)")
