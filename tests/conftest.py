"""A network small enough for hand-made expectations, and a configuration composed as the command line does it."""

from __future__ import annotations

import gc
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from compositions import configured, kept, remembered
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from ftexp.__main__ import main
from ftexp.config import (
    AugmentConfig,
    BatchNormPolicyConfig,
    Config,
    SchedulerConfig,
    register_schema,
)
from ftexp.config.conf_dir import conf_dir
from ftexp.config.optim import AdamWConfig
from ftexp.evaluation.scores import Scores
from ftexp.files.whole_file import replaced_whole
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import Block, Network
from ftexp.preprocessing import Preprocessing

# The test files that take longest begin first, so that no process waits for another at the end.
LONGEST = ("test_main_job.py", "test_torchrun.py", "test_exact_resume.py")

# Hypothesis generates the same examples in every run; ``pytest --hypothesis-profile=default`` searches for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

Compose = Callable[..., Config]
CommandLine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Imports make no garbage worth looking for, and what they made is not looked at again in every later search."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """At the end of the process everything is to be found again."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the files that take longest to the front."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def watch_memory(process: subprocess.Popen[str], steps_done: Callable[[], int]) -> dict[int, float]:
    """Follow a process to its end; its resident memory in MiB when each number of steps was first seen to be done."""
    resident: dict[int, float] = {}
    try:
        while process.poll() is None:
            done = steps_done()
            if done not in resident:
                resident[done] = psutil.Process(process.pid).memory_info().rss / 2**20
            time.sleep(0.01)
        _, errors = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return resident


@pytest.fixture(scope="session", autouse=True)
def compositions() -> Iterator[None]:
    """Hydra takes a third of a second to compose a configuration, and a test of the command line composes several."""
    with remembered():
        yield


@pytest.fixture
def configure() -> Iterator[Compose]:
    """Compose and check a configuration: ``configure("stage=head", "train.batch_size=4")``."""
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir())):
        yield configured


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run draws its plan, which is a third of a short run's time; those of tests/report look at the pictures."""
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: Path(path).touch())


@pytest.fixture
def command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[CommandLine]:
    """``python -m ftexp`` in ``tmp_path``, here: a process of its own would spend its time on importing torch.

    ``command_line("stage=head")``, or with another entry than ftexp's: ``command_line("stage=head", entry=command)``.
    """

    def call(*arguments: str, entry: Callable[[], None] = main) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["ftexp", *arguments])
        capsys.readouterr()
        code: object = 0
        try:
            entry()
        except SystemExit as stopped:
            code = stopped.code
        assert isinstance(code, int), code
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    GlobalHydra.instance().clear()
    yield call
    GlobalHydra.instance().clear()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's with its tables, which takes seconds to make: once for all test processes."""
    from ftexp.tracking.mlflow_tracker import MlflowTracker

    store = kept() / f"mlflow-{version('mlflow')}.db"
    if not store.exists():
        made = tmp_path_factory.mktemp("store") / "mlflow.db"
        MlflowTracker.start(f"sqlite:///{made}", "none", "none").close("FINISHED")
        with replaced_whole(store) as unfinished:
            shutil.copy(made, unfinished)
    return store


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    """The URI of a store of the test's own."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a run started in this process set up: its handlers write to streams that are gone by then."""
    loggers = [logging.getLogger(), logging.getLogger("ftexp")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


class TinyNet(nn.Module):
    """Stem, one body block with dropout, head: 3 x 8 x 8 images, 4 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5))
        self.token = nn.Parameter(torch.zeros(6))
        self.fc = nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(self.stem(images)).mean(dim=(2, 3)) + self.token)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(
        TinyNet(),
        [Block("stem", ("stem",)), Block("body", ("body", "token"))],
        head="fc",
        preprocessing=Preprocessing(8, 8, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        name="tiny",
        num_classes=4,
    )


def scores_of(labels: Sequence[int], predictions: Sequence[int], num_classes: int, loss: float = 1.0) -> Scores:
    """Scores that follow from predictions alone; every sample has the same loss."""
    truth, guess = np.asarray(labels), np.asarray(predictions)
    return Scores(truth, guess, (truth != guess).astype(np.int64), np.full(len(truth), loss), num_classes)


def make_phase(*learning: str, policy: str = "train", **optimizer: object) -> Phase:
    """A phase of one epoch in which these blocks learn, with AdamW."""
    rates = {"name": "adamw", "head_lr": 1e-2, "backbone_lr": 1e-3, **optimizer}
    statistics, affine = {"train": (True, True), "freeze_affine": (True, False), "eval": (False, True)}.get(
        policy, (False, False)
    )
    return Phase(
        name="phase",
        epochs=1,
        learning=learning,
        optimizer=AdamWConfig(**rates),
        scheduler=SchedulerConfig(name="constant", floor=1.0),
        bn_policy=BatchNormPolicyConfig(update_running_statistics=statistics, train_affine_parameters=affine),
        augment=AugmentConfig(),
    )


def draw_pictures(root: Path) -> Path:
    """Two classes of 12 plain pictures each."""
    for name, colour in (("light", 220), ("dark", 30)):
        (root / name).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (40, 30 + i), (colour, colour - i, colour)).save(root / name / f"{i}.jpg")
    return root


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder for ``data=imagefolder data.root=pictures`` in ``tmp_path``."""
    return draw_pictures(tmp_path / "pictures")


def real_images(name: str) -> Path:
    """A folder of real photographs beside the checkout, which are not part of the project; skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / name
    if not folder.is_dir():
        pytest.skip(f"the real images of {name} are not beside the checkout")
    return folder
