"""What a run trains with, once every mistake that can be found before training has been looked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ftexp.config import Config
from ftexp.data.splitting.test_ledger import TestLedger
from ftexp.data_identity import DataIdentity
from ftexp.finetune.phases import Phase
from ftexp.machine.runtime import Runtime
from ftexp.preparation.settle import Settled
from ftexp.run_identity import RunIdentity


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run trains with.

    Attributes:
        given: the configuration as the user gave it.
        settled: what it came to: the network, the images and the phases.
        runtime: the device, the precision and the processes.
        judges_labels: whether the run tells how many labels look wrong.
        ledger: counts how often each test split was opened.
        data: identifies the images, the labels and the splits; None in all processes but the main one.
        run_id: an identifier that is also in every checkpoint of the run.
        overrides: the overrides that the run was started with; None: they are not known, see ``RunIdentity``.
        mlflow_run_id: the MLflow run of a run that is resumed; None for a new run.
    """

    given: Config
    settled: Settled
    runtime: Runtime
    judges_labels: bool
    ledger: TestLedger
    data: DataIdentity | None
    run_id: str
    overrides: list[str] | None
    mlflow_run_id: str | None

    @property
    def run_name(self) -> str:
        """The name of the run in the tracking store."""
        return run_name(self.settled.config, self.settled.phases)

    def _engine(self) -> dict[str, object]:
        compiles = any(phase.compiled for phase in self.settled.phases)
        return {**self.runtime.engine(), "compile": compiles, "frozen_pass": self.settled.config.runtime.frozen_engine}

    def identity(self, mlflow_run_id: str | None) -> RunIdentity:
        """The identity of the run, with the ID that the tracking store gave it; for the main process."""
        assert self.data is not None
        settled = self.settled
        return RunIdentity.of(
            self.given,
            self.data,
            batch_size=settled.config.train.images_per_step,
            mlflow_run_id=mlflow_run_id,
            run_id=self.run_id,
            overrides=self.overrides,
            engine=self._engine(),
            head_solver="solved" if any(phase.solved for phase in settled.phases) else "sgd",
            head_depth=settled.depth.chosen,
            compiled=[phase.name for phase in settled.phases if phase.compiled],
            decided=[asdict(decision) for decision in settled.decisions],
            train_images=None if settled.run_time is None else len(settled.splits.train),
        )


def run_name(config: Config, phases: tuple[Phase, ...]) -> str:
    """The name of a run in the tracking store."""
    return f"{config.model.name} {'+'.join(phase.name for phase in phases)}"
