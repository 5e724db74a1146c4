"""``train.max_minutes`` before the first phase: until when the audit aligns, and on how many images the run trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ftexp.config import Config
from ftexp.data.splitting.splits import Splits
from ftexp.finetune.phases import Phase
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.preparation.head_depth import wants_folds
from ftexp.run_identity import RunIdentity
from ftexp.training.fewer_images import images_in_time, report_fewer, take_images
from ftexp.training.inputs.input_source import InputSource
from ftexp.training.run_time import RunTime


def end_of_alignment(config: Config, began: float) -> float:
    """When the audit aligns no further pictures, by ``time.monotonic``; ``began`` is when the command began."""
    minutes = config.train.max_minutes
    return math.inf if minutes is None else began + config.recipe.time.audit * 60 * minutes


def limit_time(
    config: Config,
    network: Network,
    splits: Splits,
    phases: Sequence[Phase],
    runtime: Runtime,
    clock: tuple[float, float],
    begun: RunIdentity | None,
    *,
    score_test: bool,
) -> tuple[RunTime | None, Splits]:
    """Measure the network, and leave out training images where not even one pass over all of them fits into the time.

    Only a head that is solved needs a pass over all images before its first score; steps take what time there is. All
    ranks have to call it.

    Args:
        config: the configuration of the run, without ``auto``.
        network: the network on its device.
        splits: the samples.
        phases: the planned phases.
        runtime: the device and the ranks.
        clock: when the command began, by ``time.monotonic``, and the seconds from there to the beginning of the run.
        begun: the identity of the run, if it is resumed: it goes on with as many images.
        score_test: whether the test split will be scored after training.

    Returns:
        The time of the run and its samples; None and all samples where the time is not limited.
    """
    if config.train.max_minutes is None:
        return None, splits
    num_images = len(splits.train), len(splits.val), splits.test.num_samples if score_test else 0
    run_time = RunTime(config, network, runtime, phases, num_images, *clock)
    run_time.measure(InputSource(config, network, splits, runtime), splits.val)
    if not (phases[0].solved or config.head.init == "solved" or wants_folds(config, phases)):
        return run_time, splits
    if begun is None:
        number = runtime.ranks.broadcast(lambda: images_in_time(run_time, splits.train))
    else:
        number = begun.train_images or len(splits.train)  # before format 8, every run trained on all
    taken = take_images(splits.train, number, config.runtime.seed)
    if len(taken) < len(splits.train):
        report_fewer(run_time, len(taken), len(splits.train))
        run_time.num_images, run_time.left_out_images = (len(taken), *num_images[1:]), True
    return run_time, replace(splits, train=taken)
