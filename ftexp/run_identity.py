"""What makes a run this run: settings, classes, images and how they are cut. Only the same run can be gone on with."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ftexp.config import Config, as_data
from ftexp.config.resume import HARMLESS
from ftexp.data.splits import Splits
from ftexp.errors import CheckpointError, ConfigError, DataError
from ftexp.file_format import check_format, reading
from ftexp.json_files import write_json
from ftexp.resume import IDENTITY, LOCK
from ftexp.tracking.params import flatten_data

PACKAGES = ("ftexp", "torch", "torchvision", "timm", "numpy", "pillow", "hydra-core", "mlflow-skinny", "optuna")
# Of run.json and digests.csv; to be raised when a field is added, goes, or gets another meaning.
FORMAT = 1
DIGESTS = "digests.csv"
MAX_NAMED = 8

log = logging.getLogger(__name__)


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
        """Of a run that is about to train; reads the files that have not been read for the audit."""
        samples = [("train", sample) for sample in splits.train] + [("val", sample) for sample in splits.val]
        files = {sample.path: splits.digests.of(sample) for _, sample in samples}
        test = splits.test.content_digest()
        contents = sorted(f"{files[sample.path]} {sample.label}" for _, sample in samples)
        cut = sorted(f"{sample.path} {split}" for split, sample in samples)
        cut += sorted(f"{row['path']} test" for row in splits.test.listing())
        return cls(
            config=json.loads(json.dumps(as_data(config))),
            classes=list(splits.classes),
            data_digest=_digest([*contents, test]),
            split_digest=_digest(cut),
            versions=installed_versions(),
            files=files,
        )

    def write(self, folder: Path) -> None:
        """Leave ``run.json``, and ``digests.csv`` with the content of every training and validation image."""
        unfinished = folder / "run.tmp"
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "digest"))
            writer.writerows(sorted(self.files.items()))
        os.replace(unfinished, folder / DIGESTS)
        facts = {"format": FORMAT, **{name: value for name, value in asdict(self).items() if name != "files"}}
        write_json(folder / IDENTITY, facts)

    @classmethod
    def read(cls, folder: Path) -> RunIdentity:
        """Of the run in this folder.

        Raises:
            FormatError: when another version of ftexp wrote it and this one does not read it.
        """
        with reading(folder / IDENTITY):
            facts = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
            check_format(facts.pop("format", None), FORMAT, folder / IDENTITY)
            identity = cls(**facts)
        with reading(folder / DIGESTS), (folder / DIGESTS).open(newline="", encoding="utf-8") as file:
            identity.files = {row["path"]: row["digest"] for row in csv.DictReader(file)}
        return identity

    def warn_of_versions(self) -> None:
        """Say which packages are no longer those that the run began with: its results may change with them."""
        now = installed_versions()
        changed = [
            f"{name} {before} -> {now[name]}"
            for name, before in self.versions.items()
            if name in now and now[name] != before
        ]
        if changed:
            log.warning(
                "resume  the run began with other versions: %s. Its results may differ from those of an "
                "uninterrupted run.",
                ", ".join(changed),
            )

    def check_settings(self, config: Config, *, force: bool) -> None:
        """Refuse to go on with other settings than the run began with.

        Args:
            force: allow those that change nothing of the result.

        Raises:
            ConfigError: with every difference.
        """
        before, now = flatten_data(self.config), flatten_data(json.loads(json.dumps(as_data(config))))
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        added = [key for key in changed if key not in before and _is_new_field(key, config, self.config)]
        refused = [key for key in changed if not (force and key.startswith(HARMLESS))]
        if not set(refused) - set(added):
            for key in added:
                log.warning("resume  %s=%s is a setting that the run's version of ftexp did not have.", key, now[key])
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


def installed_versions() -> dict[str, str]:
    """Of the packages that a run's result may depend on, and of Python."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _is_new_field(key: str, config: Config, before: Mapping[str, Any]) -> bool:
    """Whether a setting is a field of a dataclass that the earlier configuration had as well, without this field."""
    node: Any = config
    section: Any = before
    *parents, _ = key.split(".")
    for name in parents:
        if isinstance(node, list) and isinstance(section, list):
            if int(name) >= min(len(node), len(section)):
                return False
            node, section = node[int(name)], section[int(name)]
        elif is_dataclass(node) and isinstance(section, dict) and name in section:
            node, section = getattr(node, name), section[name]
        else:
            return False
    return is_dataclass(node) and isinstance(section, dict)


def _digest(lines: list[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _show(settings: Mapping[str, object], key: str) -> object:
    return settings.get(key, "(none)")
