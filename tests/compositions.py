"""Configurations, composed as the command line does it; each once for all test processes, until the sources change."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf

from ftexp.config import Config, parse
from ftexp.config.conf_dir import conf_dir
from ftexp.files.whole_file import replaced_whole

PROJECT = Path(__file__).resolve().parents[1]
KEPT = PROJECT / ".pytest_cache" / "composed"


@cache
def kept() -> Path:
    """The folder of what was composed from these sources; that of other sources is removed."""
    digest = hashlib.sha256(f"{version('hydra-core')} {version('omegaconf')}".encode())
    sources = [*conf_dir().rglob("*.yaml"), *PROJECT.glob("ftexp/**/*.py"), PROJECT / "pyproject.toml", Path(__file__)]
    for file in sorted(sources):
        digest.update(file.read_bytes())
    folder = KEPT / digest.hexdigest()
    for other in KEPT.glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def once(make: Callable[[tuple[str, ...]], object], overrides: tuple[str, ...]) -> bytes:
    """What ``make`` returns, pickled, which is the fastest way to copy it."""
    key = hashlib.sha256("\n".join([make.__name__, *overrides]).encode()).hexdigest()
    file = kept() / f"{key}.pickle"
    if not file.exists():
        with replaced_whole(file) as unfinished:
            unfinished.write_bytes(pickle.dumps(make(overrides)))
    return file.read_bytes()


def of_groups(options: tuple[str, ...]) -> DictConfig:
    """Composed from options of groups alone, which takes Hydra half a second."""
    return compose("config", overrides=list(options))


def composed(overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes; single keys are set on a copy of the composed groups by the call that Hydra makes."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    keys = [o for o in parsed if "." in o.key_or_group and o.type is OverrideType.CHANGE]
    config: DictConfig = pickle.loads(once(of_groups, tuple(str(o.input_line) for o in parsed if o not in keys)))
    for override in keys:
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    return config


def checked(overrides: tuple[str, ...]) -> Config:
    """A checked configuration."""
    return parse(composed(overrides))


def configured(*overrides: str) -> Config:
    """A new object each time; the work is done once for settings that do not depend on the environment."""
    if any(sign in override for override in overrides for sign in "~$"):
        return checked(overrides)
    config: Config = pickle.loads(once(checked, overrides))
    return config


# What Hydra itself does.
READ = FileConfigSource.load_config
MERGE = ConfigLoaderImpl._compose_config_from_defaults_list


def read_once() -> Callable[[FileConfigSource, str], ConfigResult]:
    """As Hydra reads a file of ``conf``, but parses it once in this process."""
    read: dict[tuple[str, str, str], bytes] = {}

    def load_config(source: FileConfigSource, config_path: str) -> ConfigResult:
        if Path(source.path) != conf_dir():
            return READ(source, config_path)
        key = source.provider, source.path, config_path
        if key not in read:
            read[key] = pickle.dumps(READ(source, config_path))
        result: ConfigResult = pickle.loads(read[key])
        return result

    return load_config


def merged(loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
    """As Hydra merges the chosen files, which takes it most of the time, but once for all test processes."""
    sources = [(source.scheme(), source.path) for source in repo.get_sources()]
    if any(scheme == "file" and Path(path) != conf_dir() for scheme, path in sources):
        return MERGE(loader, defaults, repo)

    def of_files(_: tuple[str, ...]) -> DictConfig:
        return MERGE(loader, defaults, repo)

    config: DictConfig = pickle.loads(once(of_files, (*map(str, sources), *map(repr, defaults))))
    return config


@contextmanager
def remembered() -> Iterator[None]:
    """Hydra reads and merges the files of ``conf`` once; keys, flags and files elsewhere are left to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileConfigSource, "load_config", read_once())
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merged)
        yield


@contextmanager
def by_hydra_alone() -> Iterator[None]:
    """Nothing is remembered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileConfigSource, "load_config", READ)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", MERGE)
        yield
