"""The images to evaluate on: a split of the run itself, found by content, or other data with labels."""

from __future__ import annotations

import glob
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf

from ftexp.config import SCHEMA, DataConfig, TrackingConfig, with_changes
from ftexp.data.digests import ContentDigests, of_bytes
from ftexp.data.remote import is_url
from ftexp.data.samples import SPLITS, Sample, SampleTable
from ftexp.data.sources.registry import read_samples
from ftexp.data.sources.shard_names import expand_braces
from ftexp.data.splitting.test_ledger import TestLedger, open_ledger
from ftexp.data.splitting.test_split import digest_of_test_set
from ftexp.errors import ConfigError, DataError, listed
from ftexp.files.file_format import reading
from ftexp.files.run_files import IDENTITY
from ftexp.run_identity import RunIdentity
from ftexp.run_images import KnownImage

T = TypeVar("T")

log = logging.getLogger(__name__)

# Splits that can be evaluated. On the images it was trained on, a classifier always looks good.
EVALUATED = ("val", "test")


@dataclass(frozen=True, slots=True)
class RunData:
    """The images of a run as its folder knows them.

    Attributes:
        folder: of the run.
        config: ``data`` of the run's configuration.
    """

    folder: Path
    identity: RunIdentity
    config: DataConfig

    @classmethod
    def of(cls, folder: Path, changes: Sequence[str] = ()) -> RunData:
        """Of the run in a folder.

        Args:
            changes: settings of ``data`` that are different by now, such as ``data.root=/new/place``.

        Raises:
            ConfigError: when there is no run in the folder, or it has no such setting.
        """
        if not (folder / IDENTITY).exists():
            raise ConfigError(
                f"{folder} is not the folder of a run, so it has no images of its own. Give others: --data "
                "data=imagefolder data.root=FOLDER."
            )
        identity = RunIdentity.read(folder)
        with reading(folder / IDENTITY):
            kind: type[DataConfig] = SCHEMA["data"][f"_{identity.config['data']['source']}"]
            config = settings_of(kind, identity.config["data"])
        return cls(folder, identity, _changed(_located(config, _started_in(folder)), changes))

    def samples(self, split: str) -> SampleTable:
        """The images of a split in the run's own order, wherever they lie by now.

        Raises:
            DataError: when some of them are missing.
        """
        wanted = [image for image in self.identity.data.images if image.split == split]
        if not wanted:
            raise DataError(f"The run in {self.folder} has no {split} split, or was made before runs kept it.")
        samples = read_samples(self.config)
        found = list(_find(wanted, samples))
        missing = [image.path for image, row in zip(wanted, found, strict=True) if row is None]
        if missing:
            raise DataError(
                f"{len(missing)} of the {len(wanted)} {split} images of the run in {self.folder} are not there: "
                f"{listed(missing, 3)}. Where they were moved, say where to: --data data.root=FOLDER (or data.file). "
                "For other images name their source, too: --data data=imagefolder data.root=FOLDER."
            )
        return samples.take([row for row in found if row is not None])

    def seen(self, samples: Sequence[Sample]) -> dict[str, int]:
        """How many of these images are in each split of the run, by their content."""
        images = self.identity.data.images
        split_of = {of_bytes(image.digest): image.split for image in images if image.split}
        digests = ContentDigests()
        found = [split_of.get(of_bytes(_digest(sample, digests))) for sample in samples]
        return {split: found.count(split) for split in SPLITS if split in found}

    @contextmanager
    def counting_test(self) -> Iterator[TestUse]:
        """Count an opening of the run's test split, before it happens; the score is to be added within.

        Raises:
            DataError: when it has been opened ``test.max_uses`` times already.
        """
        with reading(self.folder / IDENTITY):
            tracking = TrackingConfig(**self.identity.config["tracking"])
            max_uses = self.identity.config["test"]["max_uses"]
        ledger = open_ledger(tracking, _started_in(self.folder))
        images = [image for image in self.identity.data.images if image.split == "test"]
        test_set = digest_of_test_set((image.digest, image.label) for image in images)
        ledger.check(test_set, max_uses)
        yield TestUse(ledger, ledger.record_use(test_set, f"{self.folder.absolute()} (evaluate)"))
        uses = len(ledger.uses(test_set))
        log.warning("This is use %d of this test set. Scores of models that were chosen by it are too good.", uses)


@dataclass(frozen=True, slots=True)
class TestUse:
    """One opening of a test split."""

    ledger: TestLedger
    number: int

    __test__ = False  # no test case, whatever its name says to pytest

    def record(self, accuracy: float) -> None:
        """Add its score."""
        self.ledger.record_score(self.number, accuracy)


def settings_of(kind: type[T], content: Mapping[str, Any]) -> T:
    """A group of a run's saved configuration as checked settings.

    Args:
        kind: the group's schema.
    """
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), dict(content)))
    assert isinstance(config, kind)
    return config


def other_samples(config: DataConfig, split: str | None) -> SampleTable:
    """The images of other data.

    Args:
        split: only those that the data itself puts there; None: all of them.

    Raises:
        DataError: when the data has no such split.
    """
    samples = read_samples(config)
    if split is None:
        return samples
    chosen = samples.of_splits(split)
    if not chosen:
        have = sorted(set(filter(None, samples.values("split"))))
        there = f"has the splits {listed(have)}" if have else "brings no splits of its own"
        raise DataError(f"The data {there}, and {split} was asked for. Without --split all its images are evaluated.")
    return chosen


def _changed(config: DataConfig, changes: Sequence[str]) -> DataConfig:
    given = {}
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign or not key.startswith("data."):
            raise ConfigError(f"--data {change}: settings of the data are given as data.KEY=VALUE.")
        given[key.removeprefix("data.")] = value
    return with_changes(config, given, "data") if given else config


def _started_in(folder: Path) -> Path | None:
    """The working folder in which a run was started, as Hydra has left it; None where that is not kept."""
    try:
        settings = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text(encoding="utf-8"))
        return Path(settings["hydra"]["runtime"]["cwd"])
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return None


def _located(config: DataConfig, started_in: Path | None) -> DataConfig:
    """With relative paths taken from where the run was started, unless they lead somewhere from here."""
    if started_in is None:
        return config
    keys = ("root", "file", "shards", "classes", "index")
    places = {key: value for key in keys if isinstance(value := getattr(config, key, None), str)}
    moved = {key: str(started_in / value) for key, value in places.items() if not _leads_somewhere(value)}
    return with_changes(config, moved, "data")


def _leads_somewhere(path: str) -> bool:
    """Whether a path of the settings, which can be a pattern of several, is a URL or there is such a file."""
    return is_url(path) or any(os.path.exists(one) or glob.glob(one) for one in expand_braces(path)[:1])


def _find(wanted: Sequence[KnownImage], samples: SampleTable) -> Iterator[int | None]:
    """The row of each image: by its path where the content is the same, else by content among all others."""
    digests = ContentDigests()
    by_path = {path: row for row, path in enumerate(samples.values("path"))}
    by_content: dict[tuple[str, str], list[int]] | None = None
    for image in wanted:
        row = by_path.get(image.path)
        sample = None if row is None else samples[row]
        if sample is not None and (_digest(sample, digests), sample.label) == (image.digest, image.label):
            yield row
            continue
        if by_content is None:  # reads every file
            by_content = defaultdict(list)
            for at, one in enumerate(samples):
                by_content[_digest(one, digests), one.label].append(at)
        same = by_content[image.digest, image.label]
        yield (same.pop(0) if len(same) > 1 else same[0]) if same else None


def _digest(sample: Sample, digests: ContentDigests) -> str:
    """The content's name; of a file that cannot be read, none that any other has."""
    try:
        return digests.of(sample)
    except OSError:
        return f"unreadable {sample.path}"
