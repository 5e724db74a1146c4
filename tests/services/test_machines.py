"""The places where runs and sweeps are started: what their configurations say, and a job of a scheduler."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import submitit
from conftest import CommandLine
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from omegaconf import DictConfig

from ftexp.cli.messages import explain
from ftexp.config import register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.sweeps.plugin import register_sweeper

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def composing() -> Iterator[None]:
    register_schema()
    register_sweeper()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir())):
        yield


def composed(*overrides: str) -> DictConfig:
    return compose("config", overrides=list(overrides), return_hydra_config=True)


@pytest.mark.usefixtures("composing")
def test_one_gpu_and_eight() -> None:
    assert composed("runtime=cuda").runtime.device == "cuda"
    eight = composed("experiment=eight_gpus")
    assert (eight.runtime.device, eight.train.batch_size % 8) == ("cuda", 0)


@pytest.mark.usefixtures("composing")
def test_slurm_gives_every_trial_a_gpu() -> None:
    config = composed("experiment=slurm", "hydra.launcher.partition=gpu")
    assert config.hydra.launcher._target_.endswith("SlurmLauncher")
    assert config.hydra.launcher.gpus_per_node == 1
    assert config.hydra.sweeper.n_jobs == config.hydra.launcher.array_parallelism == 8
    assert config.runtime.device == "cuda"


@pytest.mark.skipif(shutil.which("srun") is not None, reason="there is a SLURM here")
def test_slurm_that_is_not_there_is_one_message(command_line: CommandLine) -> None:
    ended = command_line("-m", "experiment=slurm", "stage=head")
    assert ended.returncode == 1
    assert ended.stderr.startswith("ftexp: hydra/launcher=submitit_slurm needs SLURM, and this machine has no srun.")
    assert "Traceback" not in ended.stderr


def test_a_launcher_that_is_not_installed_names_the_extra() -> None:
    missing = MissingConfigException("", missing_cfg_file="hydra/launcher/ray", options=["basic", "joblib"])
    assert explain(missing) == (
        "There is no hydra/launcher=ray. Install it with pip install 'ftexp[ray]'. Options: basic, joblib."
    )


@pytest.mark.usefixtures("composing")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra")
def test_ray_gives_every_trial_a_gpu() -> None:
    config = composed("experiment=ray")
    assert config.hydra.launcher.ray.remote.num_gpus == 1
    assert config.hydra.launcher.ray.init.address == "auto"


@pytest.mark.slow
def test_a_job_of_a_scheduler_trains_with_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = ["runtime.device=cpu", "data.image_size=32", "stage=head", "stage.epochs=1", "tracking=none"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "ftexp"]
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="local")
    executor.update_parameters(timeout_min=5, tasks_per_node=1)
    command = submitit.helpers.CommandFunction([*torchrun, *small, f"hydra.run.dir={tmp_path / 'run'}"], cwd=tmp_path)
    job = executor.submit(command)
    output = job.result()
    assert "on 2 x cpu" in output
    assert (tmp_path / "run" / "result.json").exists()
    assert job.job_id != str(os.getpid())
