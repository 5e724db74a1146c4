"""One run, from the configuration to the score on the test split, in the order of events."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from ftexp.config import Config
from ftexp.data.splitting.test_ledger import TestLedger
from ftexp.evaluation.diagnosis import read_against
from ftexp.evaluation.history import Observer
from ftexp.evaluation.scores import Scores
from ftexp.machine.distributed import process_group
from ftexp.prepare import Prepared, log_data_tables, prepare
from ftexp.report.recorder import Recorder
from ftexp.run_folder import claimed
from ftexp.run_result import RunResult
from ftexp.tracking.factory import make_tracker
from ftexp.tracking.params import flatten
from ftexp.tracking.provenance import provenance
from ftexp.tracking.tracker import NoTracker
from ftexp.training.fit import Fit, fine_tune
from ftexp.training.interruption import StopSignals
from ftexp.training.out_of_memory import out_of_memory_explained

log = logging.getLogger(__name__)


def run(
    config: Config,
    folder: Path,
    *,
    score_test: bool = True,
    resumable: bool = True,
    observers: Sequence[Observer] = (),
    overrides: Sequence[str] = (),
) -> RunResult:
    """Fine-tune as configured and leave everything in ``folder``; under torchrun, together with its other processes.

    Args:
        folder: of the main process; what the others give does not matter.
        score_test: False in a sweep, which must never see the test split.
        resumable: whether ``last.pt`` is written. False in a sweep, which begins a trial that was stopped anew.
        observers: told of every epoch, and asked before every other one; what they raise ends the run.
        overrides: of the command, without passwords; kept for a command that goes on with the run.

    Returns:
        What the run came to: the best epoch and its validation metrics, the test metrics, the phases' verdicts.

    Raises:
        UserError: for anything the user has to put right; most of it before any data is read.
        DivergedError: when an epoch's loss is not finite and no retry is left.
        PrunedError: if an observer wants no more of it.
    """
    with process_group(config.runtime.device) as ranks, StopSignals() as stop:
        folder = ranks.broadcast(lambda: folder)
        with claimed(folder, new=not config.resume.run) if ranks.is_main else nullcontext():
            started = time.perf_counter()
            prepared = prepare(config, folder, ranks, score_test=score_test, overrides=overrides)
            memory = out_of_memory_explained(prepared.config.train, prepared.runtime)
            with _recorder(prepared, folder) as recorder, memory:
                fit = _fit(prepared, recorder, stop, observers, resumable=resumable)
                test, uses = score_test_split(fit, prepared.ledger, folder) if score_test else (None, 0)
                return _finish(prepared, recorder, fit, test, uses, time.perf_counter() - started)


def _fit(
    prepared: Prepared, recorder: Recorder, stop: StopSignals, observers: Sequence[Observer], *, resumable: bool
) -> Fit:
    """Train the phases; the best weights are in the network afterwards."""
    return fine_tune(
        prepared.config,
        prepared.network,
        prepared.splits,
        prepared.phases,
        prepared.runtime,
        recorder,
        stop,
        observers,
        resumable=resumable,
        run_id=prepared.run_id,
    )


def score_test_split(fit: Fit, ledger: TestLedger, folder: Path) -> tuple[Scores, int]:
    """Score the test split with the weights that are in the network, the best on the validation set.

    The test ledger counts this use before the test samples are handed out.

    Args:
        fit: the finished training.
        ledger: counts the uses of each test set.
        folder: of the run, by which the ledger identifies it.

    Returns:
        The scores, and how often this test set has been used by now; 0 in all processes but the main one.
    """
    network, runtime, splits = fit.network, fit.runtime, fit.splits
    network.module.eval()
    test_set = splits.test.content_digest()
    use = runtime.ranks.broadcast(lambda: ledger.record_use(test_set, str(folder)))
    with fit.inputs() as source:
        scores = fit.score(network.module, source.for_scoring(splits.test.take_samples()), "test")
    if not runtime.ranks.is_main:
        return scores, 0
    ledger.record_score(use, scores.accuracy)
    return scores, len(ledger.uses(test_set))


def _finish(
    prepared: Prepared, recorder: Recorder, fit: Fit, test: Scores | None, uses: int, seconds: float
) -> RunResult:
    """Write the result, which all processes return, and give the tracking store the model where it is asked for."""
    config, splits, runtime, best = prepared.config, prepared.splits, prepared.runtime, fit.best
    assert best is not None

    def finish() -> RunResult:
        memory = runtime.peak_memory_mib()
        return recorder.finish(best, test, splits, test_uses=uses, peak_memory_mib=memory, seconds=seconds)

    result = runtime.ranks.broadcast(finish)
    if runtime.ranks.is_main and test is not None and config.tracking.wants_model:
        recorder.log_model(prepared.network, splits.val[0], config.tracking.register_as)
    return result


@contextmanager
def _recorder(prepared: Prepared, folder: Path) -> Iterator[Recorder]:
    """What the run is recorded with: in its folder and the tracking store by the main process, nowhere by others."""
    config, splits = prepared.config, prepared.splits
    setting = read_against(config, splits.train, splits.val)
    if not prepared.runtime.ranks.is_main:
        with TemporaryDirectory() as nowhere:
            yield Recorder(Path(nowhere), NoTracker(), setting, prepared.phases)
        return
    tracker = make_tracker(config.tracking, prepared.run_name, prepared.mlflow_run_id)
    identity = prepared.identity(tracker.run_id or prepared.mlflow_run_id)
    identity.write(folder)
    recorder = Recorder(folder, tracker, setting, prepared.phases)
    try:
        if prepared.mlflow_run_id is None:
            tracker.log_params(flatten(config))
        else:
            recorder.send_missing()  # a store refuses to change what it has, such as the place of the images
        tracker.set_tags(prepared.runtime.facts() | {"folder": str(folder)} | provenance(identity.as_dict()))
        counts = {"train": len(splits.train), "val": len(splits.val), "test": splits.test.num_samples}
        tracker.log_data_set(config.data.source, identity.data.data_digest, counts)
        log_data_tables(tracker, folder)
        yield recorder
    except BaseException as error:
        tracker.close(recorder.failed(error))
        raise
    tracker.close("FINISHED")
