"""``python -m ftexp.compare_models 'models=[a,b,c]' ...``: which frozen network has the best features for these images.

Its settings are those of a run. It writes ``compare_models.json`` and ``compare_models.csv``.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ftexp.cli.command_line import guarded, run_command
from ftexp.config import Config
from ftexp.machine.interpreter import quick_imports, run_program

log = logging.getLogger("ftexp.compare_models")  # not __main__, as which it may run

HELP = """ftexp.compare_models ranks pretrained networks by how well a head on their frozen features does.

  python -m ftexp.compare_models 'models=[efficientnet_lite0,resnet50,vit_b_16]' data=imagefolder data.root=pictures
  python -m ftexp.compare_models 'models=[resnet18,convnextv2_atto,resnet18@outputs/2026-11-24/09-30-00-123456]'

  models=[NAME,NAME@WEIGHTS]   names that python -m ftexp.models lists, or timm's (timm/NAME where both have one);
                               WEIGHTS: as model.weights, such as a file, the folder of a run, or null (random)

It takes the settings of python -m ftexp (group=option, group.key=value), but not model=NAME. Every frozen network runs
once over train and val, never over test; features are cached. A head on them is cross-validated, on the same folds for
all networks. It ranks these heads (probes): fine-tuned networks may rank differently. A network whose weights cannot be
had, or that does not fit the images, is a row with the reason.
  probe.folds=5           folds of each repeat; no group and no set of copies of an image is in two folds
  probe.repeats=3         repeats with other folds
  runtime.seed=0          of the folds
  train.metric=accuracy   the metric that ranks
  hydra.run.dir=FOLDER    the folder for the files; the default is outputs/DATE/TIME

Files: compare_models.csv (a row per network: score with its interval, difference from the best one, seconds and memory
of the forward pass for an image, parameters), compare_models.json (the same, and every pair), splits.csv."""


def job(composed: DictConfig) -> None:
    """Compare networks on one data set."""
    guarded(composed, compare_and_write)


def compare_and_write(config: Config, folder: Path) -> None:
    """Cross-validate a head on each network, and write the table to ``folder``."""
    with quick_imports():
        from ftexp.named_models import named_models
        from ftexp.probed_models import probe_models
        from ftexp.report.model_comparison import write_comparison

    models = named_models(config.probe.models, HydraConfig.get().overrides.task)
    probed = probe_models(config, models, folder)
    for line in write_comparison(folder, probed, config.train.metric, config.runtime.seed):
        log.info(line)


def main() -> None:
    """Run the command line."""
    sys.argv[1:] = [_full_name(argument) for argument in sys.argv[1:]]
    run_command(job, own_help=HELP)


def _full_name(argument: str) -> str:
    """``models=a,b`` is short for ``probe.models=[a,b]``."""
    key, sign, value = argument.partition("=")
    if key not in ("models", "probe.models") or not sign:
        return argument
    return f"probe.models={value}" if value.startswith("[") else f"probe.models=[{value}]"


if __name__ == "__main__":
    run_program(main)
