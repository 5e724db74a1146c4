"""One run, from the configuration to the score on the test split, in the order of events."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory

from ftexp.config import Config
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_ledger import TestLedger
from ftexp.evaluation.best import Best
from ftexp.evaluation.history import Observer
from ftexp.evaluation.scores import Scores
from ftexp.inference.calibration import Calibration
from ftexp.machine.distributed import process_group
from ftexp.preparation.prepare import prepare
from ftexp.preparation.prepared import Prepared
from ftexp.preparation.read_data import log_data_tables
from ftexp.preparation.settle import Settled
from ftexp.report.depth import write_depth
from ftexp.report.recorder import Recorder
from ftexp.run_folder import claimed
from ftexp.run_result import RunResult
from ftexp.tracking.description import describe_run
from ftexp.tracking.factory import make_tracker
from ftexp.tracking.params import flatten
from ftexp.tracking.provenance import provenance
from ftexp.tracking.tracker import DESCRIPTION, NoTracker, brief
from ftexp.training.fit import Fit, fine_tune
from ftexp.training.guessing import reference_values
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
    overrides: Sequence[str] | None = (),
    splits: Splits | None = None,
    began: float | None = None,
) -> RunResult:
    """Fine-tune as configured and write everything to ``folder``; torchrun's processes all call it and train together.

    Args:
        config: the configuration as the user gave it.
        folder: the folder of the run. Only that of the main process is used.
        score_test: whether to score the test split. False in a sweep, which must never use it.
        resumable: whether ``last.pt`` is written. False in a sweep, which starts an interrupted trial again; the trials
            of a sweep have no ``report.html``, either.
        observers: are told of every epoch, and are asked before each further one; what they raise ends the run.
        overrides: the overrides of the command, without passwords; they are saved and used when the run is resumed.
            None: they are not known, because the configuration was made in Python.
        splits: the data, where it has been read and split already; None: it is read and audited.
        began: when the command began, by ``time.monotonic``, from which ``train.max_minutes`` counts; None: now.

    Returns:
        The best epoch and its validation metrics, the test metrics, and the verdict on each phase.

    Raises:
        UserError: for anything the user has to correct; most mistakes are found before any data is read.
        DivergedError: when the loss of an epoch is not finite and no retry is left.
        PrunedError: when an observer stops the run early.
    """
    at_work = time.monotonic()
    began = at_work if began is None else began
    with process_group(config.runtime.device) as ranks, StopSignals() as stop:
        folder = ranks.broadcast(lambda: folder)
        with claimed(folder, new=not config.resume.run) if ranks.is_main else nullcontext():
            started = time.perf_counter()
            prepared = prepare(
                config,
                folder,
                ranks,
                score_test=score_test,
                overrides=overrides,
                splits=splits,
                began=began,
                start_seconds=at_work - began,
            )
            memory = out_of_memory_explained(prepared.settled.config.train, prepared.runtime)
            with _recorder(prepared, folder) as recorder, memory:
                fit = _fit(prepared, recorder, stop, observers, resumable=resumable)
                _calibrate(prepared, recorder, fit)
                test, uses = score_test_split(fit, prepared.ledger, folder) if score_test else (None, 0)
                return _finish(prepared, recorder, fit, test, uses, time.perf_counter() - started, with_page=resumable)


def _fit(
    prepared: Prepared,
    recorder: Recorder,
    stop: StopSignals,
    observers: Sequence[Observer],
    *,
    resumable: bool,
) -> Fit:
    """Train the phases. Afterwards the network has the best weights."""
    settled = prepared.settled
    if settled.depth.probe is not None and prepared.runtime.ranks.is_main:
        write_depth(settled.depth.probe, settled.depth.chosen, recorder.folder)
    return fine_tune(
        settled.config,
        settled.network,
        settled.splits,
        settled.phases,
        prepared.runtime,
        recorder,
        stop,
        observers,
        features=settled.depth.features,
        judges_labels=prepared.judges_labels,
        resumable=resumable,
        run_id=prepared.run_id,
        run_time=settled.run_time,
    )


def _calibrate(prepared: Prepared, recorder: Recorder, fit: Fit) -> None:
    """Fit the temperature of the best network to the validation set, for everything that predicts with it."""
    best = fit.best
    assert best is not None
    if not prepared.runtime.ranks.is_main or not prepared.settled.config.train.calibrate:
        return
    if best.scores.logits is None:
        command = f"python -m ftexp.calibrate {quote(str(recorder.folder))}"
        log.warning("calib.  The version that began this run kept no logits of its best epoch. Try %s.", command)
        return
    calibration = Calibration.of(best.scores, best.checkpoint)
    calibration.write(best.checkpoint)
    recorder.calibrated(calibration)


def score_test_split(fit: Fit, ledger: TestLedger, folder: Path) -> tuple[Scores, int]:
    """Score the test split with the weights that are in the network, the best on the validation set.

    The test ledger counts this use before the test samples are handed out.

    Args:
        fit: the finished training.
        ledger: counts the uses of each test set.
        folder: the folder of the run, by which the ledger identifies it.

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
    prepared: Prepared,
    recorder: Recorder,
    fit: Fit,
    test: Scores | None,
    uses: int,
    seconds: float,
    *,
    with_page: bool,
) -> RunResult:
    """Write the result and the page, return the result in all processes, and log the model if configured."""
    settled, runtime, best = prepared.settled, prepared.runtime, fit.best
    assert best is not None

    def finish() -> RunResult:
        memory = runtime.peak_memory_mib()
        return recorder.finish(best, test, settled.splits, test_uses=uses, peak_memory_mib=memory, seconds=seconds)

    result = runtime.ranks.broadcast(finish)
    fit.checkpoints.clean_up(keep_last=settled.config.train.keep_last)
    if runtime.ranks.is_main and with_page:
        _write_page(settled, recorder, best)
    if runtime.ranks.is_main and test is not None and settled.config.tracking.wants_model:
        recorder.log_model(best, settled.config.tracking.register_as)
    return result


def _write_page(settled: Settled, recorder: Recorder, best: Best) -> None:
    """Write ``report.html``; if that fails, the run has its result all the same."""
    from ftexp.report.page.page import write_report  # its libraries are of no use before

    settled.network.module.eval()
    try:
        write_report(recorder.folder, settled.network, settled.splits.val, best.scores)
        recorder.log_report(log_images=settled.config.tracking.log_images)
    except Exception as error:
        command = f"python -m ftexp.report {quote(str(recorder.folder))}"
        log.warning("report.html cannot be written: %s. Try %s.", brief(error), command)


@contextmanager
def _recorder(prepared: Prepared, folder: Path) -> Iterator[Recorder]:
    """The recorder of the run: the main process records to the folder and the tracking store, the others discard."""
    config, splits, phases = prepared.settled.config, prepared.settled.splits, prepared.settled.phases
    setting = reference_values(config, splits.train, splits.val)
    if not prepared.runtime.ranks.is_main:
        with TemporaryDirectory() as discarded:
            yield Recorder(Path(discarded), NoTracker(), setting, phases)
        return
    tracker = make_tracker(config.tracking, prepared.run_name, prepared.mlflow_run_id)
    identity = prepared.identity(tracker.run_id or prepared.mlflow_run_id)
    identity.write(folder)
    recorder = Recorder(folder, tracker, setting, phases)
    try:
        if prepared.mlflow_run_id is None:
            tracker.log_params(flatten(config))
        else:
            recorder.send_missing()  # the store refuses to change a parameter, such as the folder of the images
        about = {"folder": str(folder), DESCRIPTION: describe_run(folder, tracker.run_id)}
        tracker.set_tags(prepared.runtime.facts() | about | provenance(identity.as_dict()))
        counts = {"train": len(splits.train), "val": len(splits.val), "test": splits.test.num_samples}
        tracker.log_dataset(config.data.source, identity.data.data_digest, counts)
        log_data_tables(tracker, folder, config.tracking)
        yield recorder
    except BaseException as error:
        tracker.close(recorder.failed(error))
        raise
    tracker.close("FINISHED")
