"""The identity of a run: settings, classes, images and their splits. A run is resumed only with the same identity."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ftexp.config import Config, as_data
from ftexp.config.moved import renamed_settings
from ftexp.config.recipe import AUTO
from ftexp.config.resume import FREE, HARMLESS
from ftexp.data_identity import DataIdentity
from ftexp.errors import ConfigError
from ftexp.files.file_format import check_format, reading
from ftexp.files.json_files import read_json, write_json
from ftexp.files.run_files import IDENTITY
from ftexp.finetune.recipe import Decision, auto_keys
from ftexp.run_images import FILE, read_images, write_images
from ftexp.tracking.params import flatten_data

PACKAGES = ("ftexp", "torch", "torchvision", "timm", "numpy", "pillow", "hydra-core", "mlflow-skinny", "optuna")
# The format of run.json and digests.csv; increase it when a field is added, removed, or changes its meaning.
# Format 3 added engine, format 4 head_solver, format 5 head_depth, format 6 compiled, format 7 decided,
# format 8 train_images.
FORMAT = 8
# What run.json has of the data; its images are in digests.csv.
OF_DATA = ("classes", "data_digest", "split_digest")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Written as ``run.json`` when a run begins to train, and again when it is resumed.

    Attributes:
        config: the configuration as the user gave it, as plain data without passwords; its batch size may be ``auto``.
        data: identifies the images, the labels and the splits.
        versions: package -> version that the run began with.
        batch_size: the number of images per step that the run uses.
        mlflow_run_id: the ID in the tracking store; None if the run is not tracked.
        run_id: an identifier that is also in every checkpoint of the run; "" for a run of ftexp 0.1.0.
        overrides: the overrides that the run was started with, without passwords; None for a run of ftexp 0.1.0, and
            where the configuration was made in Python.
        engine: what the run trains and scores with (``Runtime.engine``); None for a run before format 3.
        head_solver: ``solved`` or ``sgd``, whichever ``head.solver=auto`` came to; ``sgd`` for a run before format 4.
        head_depth: ``last`` or ``all``, whichever ``head.depth=auto`` came to; ``last`` for a run before format 5.
        compiled: the names of the phases that are compiled; None for a run before format 6.
        decided: key, value and reason of each setting that was ``auto``; None for a run before format 7.
        time_plan: what fits into ``train.max_minutes``, phase by phase; None without a limit, or before the first plan.
        train_images: the number of training images that there was time for; None without a limit, or before format 8.
    """

    config: dict[str, Any]
    data: DataIdentity
    versions: dict[str, str]
    batch_size: int = 0
    mlflow_run_id: str | None = None
    run_id: str = ""
    overrides: list[str] | None = None
    engine: dict[str, Any] | None = None
    head_solver: str = "sgd"
    head_depth: str = "last"
    compiled: list[str] | None = None
    decided: list[dict[str, Any]] | None = None
    time_plan: list[dict[str, Any]] | None = None
    train_images: int | None = None

    @classmethod
    def of(
        cls,
        config: Config,
        data: DataIdentity,
        *,
        batch_size: int,
        mlflow_run_id: str | None,
        run_id: str,
        overrides: list[str] | None,
        engine: dict[str, Any],
        head_solver: str = "sgd",
        head_depth: str = "last",
        compiled: list[str] | None = None,
        decided: list[dict[str, Any]] | None = None,
        train_images: int | None = None,
    ) -> RunIdentity:
        """Identify a run that is about to train with the packages that are installed.

        Args:
            config: the configuration as the user gave it.
            data: identifies the images, the labels and the splits.
            batch_size: the number of images per step that the run uses.
            mlflow_run_id: the ID in the tracking store; None if the run is not tracked.
            run_id: an identifier that is also in every checkpoint of the run.
            overrides: the overrides that the run was started with.
            engine: what the run trains and scores with.
            head_solver: how the head is trained where it is trained alone.
            head_depth: which outputs of the network its last layer gets.
            compiled: the names of the phases that are compiled.
            decided: what the settings that are ``auto`` came to.
            train_images: the number of training images that there is time for.
        """
        chosen = head_solver, head_depth, compiled, decided or []
        known = batch_size, mlflow_run_id, run_id, overrides, engine, *chosen
        return cls(_plain(config), data, installed_versions(), *known, train_images=train_images)

    def as_dict(self) -> dict[str, Any]:
        """The content of ``run.json``: everything except the images, which are in ``digests.csv``."""
        of_data = {name: getattr(self.data, name) for name in OF_DATA}
        of_run = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "data"}
        return {"format": FORMAT, **of_data, **of_run}

    def write(self, folder: Path) -> None:
        """Write ``run.json``, and ``digests.csv`` with the hash of every image."""
        write_images(folder, self.data.images)
        write_json(folder / IDENTITY, self.as_dict())

    @classmethod
    def read(cls, folder: Path) -> RunIdentity:
        """Read the identity of the run in this folder.

        Raises:
            FormatError: when another version of ftexp wrote it in a format that this one does not read.
        """
        with reading(folder / IDENTITY):
            facts = read_json(folder / IDENTITY)
            check_format(facts.pop("format", None), FORMAT, folder / IDENTITY)
            facts["versions"] = dict(facts["versions"])
            of_data = {name: facts.pop(name) for name in OF_DATA}
            config = {"head": {}, **renamed_settings(facts.pop("config"))}  # before format 4 there was no head
            with reading(folder / FILE):
                images = read_images(folder)
            return cls(**facts, config=config, data=DataIdentity(**of_data, images=images))

    def memory_format_on(self, device_type: str) -> str | None:
        """The memory format that the run trains and scores in; None on another type of device, or before format 3."""
        engine = self.engine or {}
        return engine.get("memory_format") if engine.get("device") == device_type else None

    @property
    def frozen_engine(self) -> str:
        """What runs the frozen blocks: torch (``eager``) in a run that does not say so."""
        return str((self.engine or {}).get("frozen_pass", "eager"))

    def warn_of_versions(self) -> None:
        """Warn of packages whose versions differ from those that the run began with: they may change its results."""
        now = installed_versions()
        changed = [
            f"{name} {before} -> {now[name]}"
            for name, before in self.versions.items()
            if name in now and now[name] != before
        ]
        if changed:
            log.warning(
                "resume  the run began with other package versions: %s. Its results may differ from those of an "
                "uninterrupted run.",
                ", ".join(changed),
            )

    def decisions(self, config: Config) -> list[Decision]:
        """What the run decided where this configuration says ``auto``.

        Args:
            config: the configuration of the command that resumes the run, which ``check_settings`` has accepted.
        """
        if self.decided is not None:
            return [Decision(**decision) for decision in self.decided]
        began_with = flatten_data(self.config)  # before format 7 there was no auto
        return [Decision(key, began_with[key], "as the run began with it") for key in auto_keys(config)]

    def check_settings(self, config: Config, *, force: bool) -> None:
        """Refuse to resume the run with settings other than those it began with.

        Args:
            config: the configuration of the command that resumes the run.
            force: whether to allow changed settings that do not change the result.

        Raises:
            ConfigError: naming every difference.
        """
        began_with = {group: values for group, values in self.config.items() if values != {}}  # of no earlier fields
        before, now = flatten_data(began_with), flatten_data(_plain(config))
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        if self.decided is None:
            changed = [
                key for key in changed if not (now.get(key) == AUTO and key in (*auto_keys(config), "stage.epochs"))
            ]
        added = [key for key in changed if key not in before and _is_new_field(key, config, self.config)]
        changed = [key for key in changed if key not in FREE]
        refused = [key for key in changed if not (force and key.startswith(HARMLESS))]
        if not set(refused) - set(added):
            for key in added:
                log.warning("resume  %s=%s is new: the version of ftexp that began the run lacks it.", key, now[key])
            return
        listed = "\n".join(f"  {key}: {_show(before, key)} -> {_show(now, key)}" for key in refused)
        harmless = all(key.startswith(HARMLESS) for key in refused)
        advice = "Start a new run for other settings, or give those on the left, as key=value, to resume this one"
        if harmless:
            advice = "Add resume.force=true to resume it anyway"
        if any(key.startswith("stage.") and key.endswith(".epochs") for key in refused):
            advice += "; to train for more epochs, start it with model.weights=FOLDER OF THE RUN/checkpoints/best.pt"
        if "data.classes" in refused:
            advice += "; a moved file of class names has to be where it was"
        raise ConfigError(f"The run began with other settings:\n{listed}\n{advice}.")


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that the result of a run may depend on.

    A run that neither tracks nor searches needs neither MLflow nor Optuna.
    """
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _is_new_field(key: str, config: Config, before: Mapping[str, Any]) -> bool:
    """Whether the earlier configuration had this setting's dataclass, but not yet this field of it."""
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


def _plain(config: Config) -> dict[str, Any]:
    """The configuration as it would be read back from a JSON file."""
    settings: dict[str, Any] = json.loads(json.dumps(as_data(config)))
    return settings


def _show(settings: Mapping[str, object], key: str) -> object:
    return settings.get(key, "(none)")
