"""``python -m ftexp``: the Hydra entry point, and the other commands: ``ftexp models`` runs ``ftexp.models``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ftexp.cli.command_line import guarded, in_sweep, run_command
from ftexp.cli.resume_arguments import own_overrides
from ftexp.config import Config
from ftexp.machine.interpreter import command_began, quick_imports, run_program
from ftexp.run_folder import start_again
from ftexp.sweeps.plugin import register_sweeper

# Command -> the module whose ``main`` it calls; ``python -m ftexp.COMMAND`` does the same.
COMMANDS = {
    "audit": "ftexp.audit.__main__",
    "calibrate": "ftexp.calibrate",
    "compare_models": "ftexp.compare_models",
    "cross_validate": "ftexp.cross_validate",
    "evaluate": "ftexp.evaluate",
    "export": "ftexp.export",
    "labels": "ftexp.labels",
    "learning_curve": "ftexp.learning_curve",
    "lr_find": "ftexp.lr_find",
    "models": "ftexp.models.__main__",
    "pick_images": "ftexp.pick_images",
    "predict": "ftexp.predict.__main__",
    "report": "ftexp.report.__main__",
    "settings": "ftexp.settings",
    "sync": "ftexp.sync",
    "ui": "ftexp.ui",
}


def job(composed: DictConfig) -> object:
    """Do one run, alone or as a job of a sweep. Returns the value that the sweep optimises."""
    return guarded(composed, _fine_tune)


def _fine_tune(config: Config, folder: Path) -> object:
    began = command_began()
    sweeper = HydraConfig.get().sweeper
    overrides = own_overrides(HydraConfig.get().overrides.task)
    if in_sweep() and "pruner" in sweeper:
        with quick_imports():
            from ftexp.sweeps.gpu_slots import jobs_on_shared_cores
            from ftexp.sweeps.trial import TrialAddress, run_trial

        subdir = str(HydraConfig.get().sweep.subdir)  # for a trial, its number
        address = None
        if subdir.isdecimal():
            address = TrialAddress(sweeper.storage, sweeper.study_name, int(subdir), sweeper.pruner)
        num_jobs = jobs_on_shared_cores(HydraConfig.get().launcher._target_, sweeper.n_jobs)
        return run_trial(config, folder, address, num_jobs, overrides)
    if in_sweep():
        start_again(folder, finished=False)
    with quick_imports():
        from ftexp.run import run  # after the configuration was checked: importing torch takes seconds

    alone = not in_sweep()
    return run(config, folder, score_test=alone, resumable=alone, overrides=overrides, began=began).value


def main() -> None:
    """Run the command line."""
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        command = sys.argv.pop(1)
        sys.exit(import_module(COMMANDS[command]).main() or 0)
    run_command(job, under_torchrun=True, register=register_sweeper)


def program() -> None:
    """Run the command line, then end the process quickly."""
    run_program(main)


if __name__ == "__main__":
    program()
