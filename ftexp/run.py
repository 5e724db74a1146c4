"""One run, from the configuration to the score on the test split, in the order of events."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ftexp.config import Config
from ftexp.data.ledger import TestLedger
from ftexp.data.splits import Splits
from ftexp.evaluation.diagnosis import read_against
from ftexp.evaluation.gate import judge
from ftexp.evaluation.history import Observer
from ftexp.evaluation.scores import Scores
from ftexp.file_format import reading
from ftexp.finetune.epochs import span_of
from ftexp.finetune.freezing import set_train_mode
from ftexp.finetune.param_groups import group_table
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import Network
from ftexp.prepare import Prepared, log_data_tables, prepare
from ftexp.preprocessing import Preprocessing
from ftexp.ranks import joined
from ftexp.report.recorder import Recorder
from ftexp.run_folder import claimed
from ftexp.tracking.opening import open_tracker
from ftexp.tracking.params import flatten
from ftexp.tracking.provenance import provenance
from ftexp.tracking.tracker import NoTracker
from ftexp.training.checkpoint import LAST
from ftexp.training.fit import Fit
from ftexp.training.inputs import InputSource
from ftexp.training.interruption import StopSignals
from ftexp.training.out_of_memory import out_of_memory_explained
from ftexp.training.phase_state import open_phase
from ftexp.training.run_checkpoints import RunCheckpoints
from ftexp.training.runtime import Runtime, seed_phase
from ftexp.training.start import backbone_state

log = logging.getLogger(__name__)


def run(
    config: Config,
    folder: Path,
    *,
    score_test: bool = True,
    observers: Sequence[Observer] = (),
    overrides: Sequence[str] = (),
) -> float:
    """Fine-tune as configured and leave everything in ``folder``; under torchrun, together with its other processes.

    Args:
        folder: of the main process; what the others give does not matter.
        score_test: False in a sweep, which must never see the test split.
        observers: told of every epoch, and asked before every other one; what they raise ends the run.
        overrides: of the command, without passwords; kept for a command that goes on with the run.

    Returns:
        The best value of ``train.metric`` on validation.

    Raises:
        UserError: for anything the user has to put right; most of it before any data is read.
        DivergedError: when an epoch's loss is not finite and no retry is left.
        PrunedError: if an observer wants no more of it.
    """
    with joined(config.runtime.device) as ranks, StopSignals() as stop:
        place = ranks.share(lambda: folder)
        with claimed(place, new=not config.resume.run) if ranks.is_main else nullcontext():
            started = time.perf_counter()
            prepared = prepare(config, place, ranks, score_test=score_test, overrides=overrides)
            memory = out_of_memory_explained(prepared.config.train, prepared.runtime)
            with _recorder(prepared, place) as recorder, memory:
                return _train_and_score(prepared, recorder, stop, started, observers, score_test=score_test)


def _train_and_score(
    prepared: Prepared,
    recorder: Recorder,
    stop: StopSignals,
    started: float,
    observers: Sequence[Observer],
    *,
    score_test: bool,
) -> float:
    config, splits, runtime, network = prepared.config, prepared.splits, prepared.runtime, prepared.network
    phases = prepared.phases
    settled = (config, network, splits, phases, runtime)
    run_id = prepared.identity.run_id
    fit = fine_tune(*settled, recorder, stop, observers, resumable=score_test, run_id=run_id)
    assert fit.best is not None
    test = score_test_split(fit, splits, prepared.ledger, recorder) if score_test else None
    if runtime.ranks.is_main:
        seconds, memory = time.perf_counter() - started, runtime.peak_memory_mib()
        recorder.finish(fit.best, test, splits, peak_memory_mib=memory, seconds=seconds)
        if score_test and config.tracking.wants_model:
            recorder.log_model(network, splits.val[0], config.tracking.register_as)
    return fit.best.scores.metric(config.train.metric)


@contextmanager
def _recorder(prepared: Prepared, folder: Path) -> Iterator[Recorder]:
    """What the run is recorded with: in its folder and the tracking store by the main process, nowhere by others."""
    config, splits = prepared.config, prepared.splits
    setting = read_against(config, splits.train, splits.val)
    if not prepared.runtime.ranks.is_main:
        with TemporaryDirectory() as nowhere:
            yield Recorder(Path(nowhere), NoTracker(), setting, prepared.phases)
        return
    identity = prepared.identity
    tracker = open_tracker(config.tracking, prepared.run_name, prepared.mlflow_run_id)
    identity.mlflow_run_id = tracker.run_id or prepared.mlflow_run_id
    identity.write(folder)
    recorder = Recorder(folder, tracker, setting, prepared.phases)
    try:
        if prepared.mlflow_run_id is None:
            tracker.log_params(flatten(config))
        else:
            recorder.send_missing()  # a store refuses to change what it has, such as the place of the images
        tracker.set_tags(prepared.runtime.facts() | {"folder": str(folder)} | provenance(asdict(identity)))
        counts = {"train": len(splits.train), "val": len(splits.val), "test": splits.test.num_samples}
        tracker.log_data_set(config.data.source, identity.data_digest, counts)
        log_data_tables(tracker, folder)
        yield recorder
    except BaseException as error:
        tracker.close(recorder.failed(error))
        raise
    tracker.close("FINISHED")


def fine_tune(
    config: Config,
    network: Network,
    splits: Splits,
    phases: Sequence[Phase],
    runtime: Runtime,
    recorder: Recorder,
    stop: StopSignals | None = None,
    observers: Sequence[Observer] = (),
    *,
    resumable: bool = True,
    run_id: str = "",
) -> Fit:
    """Run the phases one after the other, each from the best weights so far, as long as the gate keeps them.

    With ``config.resume.run`` it goes on where ``last.pt`` in the recorder's folder says.

    Args:
        resumable: whether there shall be such a file.
        run_id: by which checkpoints are known to be this run's.

    Returns:
        What happened; the best weights are in the network.
    """
    folder = recorder.folder / "checkpoints"
    fit = Fit(
        network=network,
        config=config,
        runtime=runtime,
        checkpoints=RunCheckpoints(folder, network, config, splits.class_to_idx, runtime.ranks, resumable, run_id),
        on_epoch=recorder.epoch,
        report=recorder.state,
        stop=stop or StopSignals(),
        observers=observers,
        start=backbone_state(network) if config.train.needs_start else {},
    )
    length = config.train, len(splits.train), runtime.ranks.size
    recorder.plan(phases, network, [span_of(phase, network, *length) for phase in phases])
    saved = resume_fit(fit, recorder) if config.resume.run else None
    for number, phase in enumerate(phases):
        if number < fit.phase_number:
            continue
        fit.phase_number = number
        fit.before_epoch()
        groups = open_phase(network, phase, config.train)
        recorder.start_phase(phase, group_table(network, groups))
        with InputSource(config, network, splits, runtime) as source:
            set_train_mode(network, phase)
            inputs = source.for_phase(phase)
            seed_phase(config.runtime.seed, number, runtime.ranks)
            best = fit.run_phase(phase, groups, inputs, saved)
        saved = None
        verdict = judge(config.stage, config.train.metric, fit.best.scores, best.scores) if fit.best else None
        recorder.end_phase(phase, best, verdict)
        if verdict is None or verdict.kept:
            fit.keep(best)
        else:
            fit.checkpoints.drop(best)
        fit.checkpoints.restore_best()
        if verdict is not None and not verdict.kept:
            break
    if config.train.wise_ft:
        with InputSource(config, network, splits, runtime) as source:
            fit.blend_with_start(source.for_scoring(splits.val))
    return fit


def resume_fit(fit: Fit, recorder: Recorder) -> Mapping[str, Any] | None:
    """Take up an interrupted run; returns where it stood in its phase, None: it had not begun to train."""
    content = fit.checkpoints.read_last()
    if content is None:
        return None
    with reading(fit.checkpoints.folder / LAST):
        # The images stay those that the run began with, where another version reads the weights' description otherwise.
        fit.network.preprocessing = Preprocessing.from_dict(content["preprocessing"])
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
    use = runtime.ranks.share(lambda: ledger.record_opening(test_set, str(recorder.folder)))
    with InputSource(fit.config, network, splits, runtime) as source:
        scores = fit.score(network.module, source.for_scoring(splits.test.open()), "test")
    if runtime.ranks.is_main:
        ledger.record_score(use, scores.accuracy)
        recorder.test_uses = len(ledger.uses(test_set))
    return scores
