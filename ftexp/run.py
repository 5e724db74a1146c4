"""One run, from the configuration to the score on the test split, in the order of events."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ftexp.audit.audit import audit_splits, find_ties
from ftexp.audit.features import PretrainedFeatures
from ftexp.config import Config, TrackingConfig
from ftexp.config.uri import sqlite_file
from ftexp.data.images import screen_images
from ftexp.data.ledger import TestLedger
from ftexp.data.sources import read_samples
from ftexp.data.splits import Splits, assign_splits, seal, write_splits
from ftexp.errors import LeakError
from ftexp.finetune.batchnorm import describe_policy
from ftexp.finetune.freezing import open_blocks, set_train_mode
from ftexp.finetune.param_groups import build_param_groups, group_table
from ftexp.finetune.phases import Phase, plan_phases
from ftexp.models.blocks import Network
from ftexp.models.catalogue import block_names, build_network, locate_weights
from ftexp.report.recorder import Recorder
from ftexp.run_identity import RunIdentity, locked
from ftexp.tracking.params import flatten
from ftexp.tracking.provenance import provenance
from ftexp.tracking.tracker import Tracker, open_tracker
from ftexp.training.batch_size import settle_batch_size
from ftexp.training.checkpoint import read_last, restore_weights
from ftexp.training.diagnosis import read_against
from ftexp.training.fit import Fit
from ftexp.training.gate import judge
from ftexp.training.history import EpochRecord
from ftexp.training.inputs import InputSource
from ftexp.training.interruption import StopSignals
from ftexp.training.intervals import warn_if_too_small
from ftexp.training.loop import evaluate
from ftexp.training.metrics import Scores
from ftexp.training.runtime import Runtime, prepare_runtime
from ftexp.training.start import backbone_state

log = logging.getLogger(__name__)


def run(
    config: Config,
    folder: Path,
    *,
    score_test: bool = True,
    observers: Sequence[Callable[[EpochRecord], None]] = (),
) -> float:
    """Fine-tune as configured and leave everything in ``folder``.

    Args:
        score_test: False in a sweep, which must never see the test split.
        observers: told of every epoch; what they raise ends the run.

    Returns:
        The best value of ``train.metric`` on validation.

    Raises:
        UserError: for anything the user has to put right; most of it before any data is read.
        DivergedError: when training leaves the numbers.
        PrunedError: if an observer wants no more of it.
    """
    with locked(folder), StopSignals() as stop:
        return _run(config, folder, score_test=score_test, observers=observers, stop=stop)


def _run(
    config: Config,
    folder: Path,
    *,
    score_test: bool,
    observers: Sequence[Callable[[EpochRecord], None]],
    stop: StopSignals,
) -> float:
    started = time.perf_counter()
    begun = RunIdentity.read(folder) if config.resume.run else None
    if begun is not None:
        begun.check_settings(config, force=config.resume.force)
    runtime = prepare_runtime(config.runtime)
    phases = plan(config)
    weights = locate_weights(config.model)
    run_name = f"{config.model.name} {'+'.join(phase.name for phase in phases)}"
    try:
        splits = read_data(config, folder, runtime.device)
    except LeakError:
        record_refusal(config, folder, run_name)
        raise
    identity = RunIdentity.of(config, splits)
    if begun is not None:
        begun.check_data(identity)
    ledger = open_ledger(config.tracking)
    if score_test:
        ledger.check(splits.test.content_digest(), config.test.max_uses)
    network = build_network(config.model, weights, len(splits.classes), config.data.image_size)
    runtime.place(network.module)
    _introduce(config, network, runtime)
    if begun is not None:
        config.train.batch_size = begun.batch_size
    config = settle_batch_size(config, network, phases, runtime, len(splits.train))
    identity.batch_size = config.train.images_per_step

    tracker = open_tracker(config.tracking, run_name, begun.mlflow_run_id if begun else None)
    identity.mlflow_run_id = tracker.run_id or (begun.mlflow_run_id if begun else None)
    identity.write(folder)
    labels = [[sample.label for sample in samples] for samples in (splits.train, splits.val)]
    recorder = Recorder(folder, tracker, read_against(config.train.metric, *labels), phases, observers)
    try:
        tracker.log_params(flatten(config))
        tracker.set_tags({"device": str(runtime.device), "precision": runtime.precision, "folder": str(folder)})
        tracker.set_tags(provenance(asdict(identity)))
        counts = {"train": len(splits.train), "val": len(splits.val), "test": splits.test.num_samples}
        tracker.log_data_set(config.data.source, identity.data_digest, counts)
        log_data_tables(tracker, folder)
        fit = fine_tune(config, network, splits, phases, runtime, recorder, stop)
        assert fit.best is not None
        test = score_test_split(fit, splits, ledger, recorder) if score_test else None
        seconds, memory = time.perf_counter() - started, runtime.peak_memory_mib()
        recorder.finish(fit.best, test, splits, peak_memory_mib=memory, seconds=seconds)
        if score_test and config.tracking.wants_model:
            best = folder / "checkpoints" / "best.pt"
            tracker.log_model(network, best, splits.val[0], config.tracking.register_as)
    except BaseException as error:
        tracker.close(recorder.failed(error))
        raise
    tracker.close("FINISHED")
    return fit.best.scores.metric(config.train.metric)


def record_refusal(config: Config, folder: Path, run_name: str) -> None:
    """Leave a run that the audit refused in the tracking store too, with the tables that say why."""
    tracker = open_tracker(config.tracking, run_name)
    tracker.log_params(flatten(config))
    tracker.set_tags({"folder": str(folder), "refused": "leak"})
    log_data_tables(tracker, folder)
    tracker.close("FAILED")


def log_data_tables(tracker: Tracker, folder: Path) -> None:
    """What reading, cutting and auditing the data left in the folder."""
    for name in ("splits.csv", "leaks.csv", "leaks.png", "bad_images.csv"):
        if (folder / name).exists():
            tracker.log_artifact(folder / name)


def plan(config: Config) -> tuple[Phase, ...]:
    """Resolve the stage against the network's blocks, before anything is loaded."""
    return plan_phases(config, block_names(config.model))


def read_data(config: Config, folder: Path, device: torch.device) -> Splits:
    """List the samples, look at every image once, cut train, val and test, and audit the cut."""
    workers = config.runtime.workers
    samples = screen_images(read_samples(config.data), config.data, folder, workers)
    extractor = PretrainedFeatures(device) if config.audit.features else None
    ties = find_ties(samples, config.audit, extractor, workers) if config.data.tie_duplicates else None
    assigned = assign_splits(samples, config.data, ties)
    splits = seal(assigned)
    write_splits(folder / "splits.csv", splits)
    log.info(
        "data    %s: %d images of %d classes; train %d, val %d, test %d (sealed)",
        config.data.source,
        len(samples),
        len(splits.classes),
        len(splits.train),
        len(splits.val),
        splits.test.num_samples,
    )
    warn_if_too_small(len(splits.val))
    if config.audit.on_leak != "off":
        audit_splits(assigned, config.audit, folder, extractor, workers)
    return splits


def fine_tune(
    config: Config,
    network: Network,
    splits: Splits,
    phases: Sequence[Phase],
    runtime: Runtime,
    recorder: Recorder,
    stop: StopSignals | None = None,
) -> Fit:
    """Run the phases one after the other, each from the best weights so far, as long as the gate keeps them.

    With ``config.resume.run`` it goes on where ``last.pt`` in the recorder's folder says.

    Returns:
        What happened; the best weights are in the network.
    """
    fit = Fit(
        network=network,
        config=config,
        runtime=runtime,
        class_to_idx=splits.class_to_idx,
        checkpoints=recorder.folder / "checkpoints",
        on_epoch=recorder.epoch,
        report=recorder.state,
        stop=stop or StopSignals(),
        start=backbone_state(network) if config.train.needs_start else {},
    )
    steps_per_epoch = math.ceil(len(splits.train) / config.train.images_per_step / config.train.accumulate)
    recorder.plan(phases, network, steps_per_epoch, len(splits.train))
    saved = resume_fit(fit, recorder) if config.resume.run else None
    for number, phase in enumerate(phases):
        if number < fit.phase_number:
            continue
        fit.phase_number = number
        open_blocks(network, phase)
        groups = build_param_groups(network, phase, decay_backbone=config.train.l2_sp is None)
        recorder.start_phase(phase, group_table(network, groups))
        with InputSource(config, network, splits, runtime) as source:
            set_train_mode(network, phase)
            best = fit.run_phase(phase, groups, source.for_phase(phase), saved)
        saved = None
        verdict = judge(config.stage, config.train.metric, fit.best.scores, best.scores) if fit.best else None
        recorder.end_phase(phase, best, verdict)
        if verdict is None or verdict.kept:
            fit.keep(best)
        else:
            fit.drop(best)
        restore_weights(fit.checkpoints / "best.pt", network)
        if verdict is not None and not verdict.kept:
            break
    if config.train.wise_ft:
        with InputSource(config, network, splits, runtime) as source:
            fit.blend_with_start(source.for_scoring(splits.val))
    return fit


def resume_fit(fit: Fit, recorder: Recorder) -> Mapping[str, Any] | None:
    """Take up an interrupted run; returns where it stood in its phase, None: it had not begun to train."""
    content = read_last(fit.checkpoints)
    if content is None:
        return None
    phase = fit.resume(content)
    recorder.resume(json.loads(content["run"]["report"]), fit.history)
    recorder.send_missing()
    log.info("resume  %s goes on after epoch %d", recorder.folder, len(fit.history))
    return phase


def score_test_split(fit: Fit, splits: Splits, ledger: TestLedger, recorder: Recorder) -> Scores:
    """Open the test split, which is counted, and score it with the weights in place, the best on validation."""
    network, runtime = fit.network, fit.runtime
    network.module.eval()
    test_set = splits.test.content_digest()
    use = ledger.record_opening(test_set, str(recorder.folder))
    with InputSource(fit.config, network, splits, runtime) as source:
        scores = evaluate(network.module, source.for_scoring(splits.test.open()), network.num_classes, runtime)
    ledger.record_score(use, scores.accuracy)
    recorder.test_uses = len(ledger.uses(test_set))
    return scores


def open_ledger(config: TrackingConfig) -> TestLedger:
    """The count of test openings, beside the tracking store; in the working folder where the store is a server."""
    store = sqlite_file(config.uri or "")
    return TestLedger((store.parent if store else Path.cwd()) / "test_ledger.sqlite")


def _introduce(config: Config, network: Network, runtime: Runtime) -> None:
    log.info(
        "model   %s at %d px on %s in %s; %s",
        network.name,
        network.preprocessing.image_size,
        runtime.device,
        runtime.precision,
        describe_policy(network.module, config.bn_policy),
    )
