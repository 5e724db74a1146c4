"""``python -m ftexp.lr_find ...`` suggests learning rates by a range test; its settings are those of a run.

It writes ``lr_find.png`` and ``lr_find.csv``; its last line of output can be pasted into the command of a run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ftexp.cli.command_line import guarded, run_command
from ftexp.cli.resume_arguments import own_overrides
from ftexp.config import Config
from ftexp.machine.interpreter import quick_imports, run_program

log = logging.getLogger("ftexp.lr_find")  # not __main__, as which it may run

HELP = """ftexp.lr_find suggests learning rates by a range test. It does not train a model.

  python -m ftexp.lr_find data=imagefolder data.root=pictures stage=partial
  python -m ftexp.lr_find data=imagefolder data.root=pictures model=resnet50 stage=full train.batch_size=64

It takes the settings of python -m ftexp (group=option, group.key=value) and tests the network that a run with these
settings would train: first the learning rate of the head, then that of the backbone if the stage trains any of it. If
the first phase solves the head, as that of stage=auto does, the head is solved and the later phases are tested.
The last line of its output can be pasted into the command of the run.

Files: lr_find.csv, lr_find.png (loss by learning rate, with the suggestion), and splits.csv, in outputs/DATE/TIME or
in hydra.run.dir=FOLDER. It keeps no trained weights and sends nothing to MLflow."""


def job(composed: DictConfig) -> None:
    """Test the learning rate of the head, and that of the backbone where the stage trains it."""
    overrides = own_overrides(HydraConfig.get().overrides.task)
    guarded(composed, lambda config, folder: find_rates(config, folder, overrides))


def find_rates(config: Config, folder: Path, overrides: Sequence[str] = ()) -> None:
    """Read the data, build the network, run the range tests, and write the table and the plot to ``folder``.

    Args:
        config: the configuration of the run whose rates are wanted.
        folder: for the files.
        overrides: the overrides of the command, some of which keep a head from being solved.
    """
    with quick_imports():
        from ftexp.machine.generators import seed_generators
        from ftexp.machine.runtime import prepare_runtime, settle_memory_format
        from ftexp.models.catalogue import build_network, locate_weights
        from ftexp.preparation.follow_recipe import follow_recipe
        from ftexp.preparation.head_depth import settle_depth, wants_folds
        from ftexp.preparation.head_solver import choose_solver, keep_solvable, solved_as_in
        from ftexp.preparation.prepare import plan
        from ftexp.preparation.read_data import read_data
        from ftexp.report.range_plot import report_ranges
        from ftexp.training.batch_size import settle_batch_size
        from ftexp.training.out_of_memory import out_of_memory_explained
        from ftexp.training.range_test import find_ranges

    runtime = prepare_runtime(config.runtime)
    planned = plan(config)
    phases = choose_solver(config, planned, overrides)
    if all(phase.solved for phase in phases):
        phases = planned  # whose heads are trained by steps as soon as a command names a rate
    weights = locate_weights(config.model)
    copies_up_to = math.inf if wants_folds(config, phases) else 0
    splits = read_data(config, folder, runtime.device, copies_up_to=copies_up_to)
    runtime = settle_memory_format(runtime, config.runtime, len(splits.train))
    seed_generators(config.runtime.seed)
    network = build_network(config.model, weights, splits.classes, config.data.image_size)
    network.preprocessing = replace(network.preprocessing, white_level=config.data.white_level)
    runtime.place(network.module)
    num_train = len(splits.train)
    phases = keep_solvable(config, planned, phases, network, num_train)
    config = settle_batch_size(config, network, phases, runtime, num_train)
    config, planned, _ = follow_recipe(config, network, phases, num_train)
    phases = solved_as_in(phases, planned)
    with out_of_memory_explained(config.train, runtime):
        depth = settle_depth(config, network, splits, phases, runtime)
        phases = keep_solvable(config, planned, phases, depth.network, num_train)
        if phases[0].solved:
            log.info("lr_find %s is solved first, as in the run; the rates are for the phases after it", phases[0].name)
        report_ranges(find_ranges(config, depth.network, splits, phases, runtime, depth.features), folder)


def main() -> None:
    """Run the command line."""
    run_command(job, own_help=HELP)


if __name__ == "__main__":
    run_program(main)
