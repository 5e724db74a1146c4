"""Everything before the first epoch: check the settings, read the data, build the network, and identify the run."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ftexp.config import Config
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_ledger import TestLedger, open_ledger
from ftexp.data_identity import DataIdentity
from ftexp.finetune.batchnorm import describe_policy
from ftexp.finetune.phases import Phase, looks_into_blocks, plan_phases
from ftexp.finetune.recipe import foreseen
from ftexp.machine.device_choice import report_unused_gpus
from ftexp.machine.distributed import Ranks
from ftexp.machine.generators import seed_generators
from ftexp.machine.runtime import Runtime, prepare_runtime, settle_memory_format
from ftexp.metric_names import check_defined
from ftexp.models.blocks import Network
from ftexp.models.catalogue import block_names, build_network, build_skeleton, locate_weights
from ftexp.models.weights import Weights
from ftexp.preparation.head_depth import wants_folds
from ftexp.preparation.head_solver import choose_solver
from ftexp.preparation.limit_time import end_of_alignment
from ftexp.preparation.prepared import Prepared, run_name
from ftexp.preparation.rank_checks import check_graphs, check_shares
from ftexp.preparation.read_data import read_recorded
from ftexp.preparation.settle import settle
from ftexp.run_identity import RunIdentity
from ftexp.training.judging import MAX_JUDGED

log = logging.getLogger(__name__)


def prepare(
    config: Config,
    folder: Path,
    ranks: Ranks,
    *,
    score_test: bool,
    overrides: Sequence[str] | None = (),
    splits: Splits | None = None,
    began: float | None = None,
    start_seconds: float = 0.0,
) -> Prepared:
    """Find every mistake that can be found before training, and build what training needs.

    Only the main process reads the data and the folder; it broadcasts what it found to the others.

    Args:
        config: the configuration as the user gave it.
        folder: the folder of the run.
        ranks: the processes that train together.
        score_test: whether the test split will be scored after training.
        overrides: the overrides of the command, which are saved with a new run; None: they are not known.
        splits: the data, where it has been read and split already; None: it is read and audited.
        began: when the command began, by ``time.monotonic``, from which ``train.max_minutes`` counts; None: now.
        start_seconds: seconds from there to the beginning of the run, most of which are imports.

    Raises:
        UserError: for anything the user has to correct; most mistakes are found before any data is read.
    """
    began = time.monotonic() if began is None else began
    begun = ranks.broadcast(lambda: _begun(config, folder))
    runtime = prepare_runtime(config.runtime, ranks)
    check_shares(config, ranks, begun)
    check_graphs(config, runtime)
    planned = plan(config)
    phases = _with_solver(config, planned, begun, overrides or ())
    weights = ranks.first_on_host(lambda: locate_weights(config.model))
    judges = config.audit.labels and score_test and ranks.size == 1  # not in a trial of a search
    splits = ranks.broadcast(lambda: splits or _read(config, folder, runtime, begun, phases, began, judges=judges))
    check_defined(config.asked_metrics, splits.classes, [sample.label for sample in splits.val])
    ledger = open_ledger(config.tracking)
    data = _identify(splits, config, ledger if score_test else None) if ranks.is_main else None
    run_id = ranks.broadcast(lambda: begun.run_id if begun else uuid.uuid4().hex)
    memory_format = begun.memory_format_on(runtime.device.type) if begun else None
    runtime = settle_memory_format(runtime, config.runtime, len(splits.train), memory_format)
    network = _build(config, weights, splits.classes, runtime)
    clock = began, start_seconds
    settled = settle(config, planned, phases, network, splits, runtime, clock, begun, score_test=score_test)
    taken = settled.splits
    return Prepared(
        given=config,
        settled=settled,
        runtime=runtime,
        judges_labels=judges and taken.copies is not None and len(taken.train) + len(taken.val) <= MAX_JUDGED,
        ledger=ledger,
        data=data,
        run_id=run_id,
        overrides=begun.overrides if begun else None if overrides is None else list(overrides),
        mlflow_run_id=begun.mlflow_run_id if begun else None,
    )


def _begun(config: Config, folder: Path) -> RunIdentity | None:
    """The identity of the run to resume; None for a new run. Refuses settings other than those it began with."""
    if not config.resume.run:
        return None
    begun = RunIdentity.read(folder)
    begun.check_settings(config, force=config.resume.force)
    begun.warn_of_versions()
    return begun


def _with_solver(
    config: Config, planned: tuple[Phase, ...], begun: RunIdentity | None, overrides: Sequence[str]
) -> tuple[Phase, ...]:
    """The planned phases, the heads of some of which are solved; a run that trained its head by steps goes on so."""
    if begun is None:
        return choose_solver(config, planned, overrides)
    return planned if begun.head_solver == "sgd" else choose_solver(config, planned, begun.overrides or [])


def _read(
    config: Config,
    folder: Path,
    runtime: Runtime,
    begun: RunIdentity | None,
    phases: tuple[Phase, ...],
    began: float,
    *,
    judges: bool,
) -> Splits:
    """Read and audit the data; copies are looked for where folds or the judging of labels will need them."""
    return read_recorded(
        config,
        folder,
        runtime.device,
        begun,
        name=run_name(config, phases),
        copies_up_to=math.inf if wants_folds(config, phases) else MAX_JUDGED if judges else 0,
        align_until=end_of_alignment(config, began),
    )


def _identify(splits: Splits, config: Config, ledger: TestLedger | None) -> DataIdentity:
    """Identify the data, and refuse the run here if it may not open its test split after training."""
    data = DataIdentity.of(splits)
    if ledger is not None:
        ledger.check(splits.test.content_digest(), config.test.max_uses)
    return data


def plan(config: Config) -> tuple[Phase, ...]:
    """Resolve the stage into phases by the names of the network's blocks, before any weights are loaded."""
    if looks_into_blocks(config.stage):
        skeleton = build_skeleton(config.model, num_classes=2)
        return plan_phases(config, skeleton.names, skeleton)
    return plan_phases(config, block_names(config.model))


def foresee(config: Config) -> Config:
    """The configuration with a value in place of every ``auto``, as far as the network alone tells it."""
    return foreseen(config, build_skeleton(config.model, num_classes=2))


def _build(config: Config, weights: Weights | None, classes: Sequence[str], runtime: Runtime) -> Network:
    """The network with its pretrained weights and a new head, on the device."""
    seed_generators(config.runtime.seed)  # again: a cached audit has drawn fewer random numbers than a new one
    network = build_network(config.model, weights, classes, config.data.image_size)
    network.preprocessing = replace(network.preprocessing, white_level=config.data.white_level)
    runtime.place(network.module)
    _introduce(config, network, runtime)
    return network


def _introduce(config: Config, network: Network, runtime: Runtime) -> None:
    report_unused_gpus(config.runtime.device, runtime.device, runtime.ranks)
    log.info(
        "model   %s at %d px on %s in %s; %s",
        network.name,
        network.preprocessing.image_size,
        f"{runtime.ranks.size} x {runtime.device.type}" if runtime.ranks.size > 1 else runtime.device,
        runtime.precision,
        describe_policy(network.module, config.bn_policy),
    )
