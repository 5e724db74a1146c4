"""What a run trains with, once every mistake that can be found before training has been looked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ftexp.config import Config
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_ledger import TestLedger
from ftexp.data_identity import DataIdentity
from ftexp.finetune.phases import Phase
from ftexp.finetune.recipe import Decision
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.preparation.head_depth import Depth
from ftexp.run_identity import RunIdentity
from ftexp.training.run_time import RunTime


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run trains with.

    Attributes:
        given: the configuration as the user gave it.
        config: the same configuration, in which everything has a value that was given as ``auto``.
        decisions: what ``auto`` came to, except for the batch size.
        runtime: the device, the precision and the processes.
        phases: the phases that the stage resolves to, in the order of training.
        splits: the samples of the training, validation and test splits; of the training set those that there is time
            for.
        depth: the network with its pretrained weights and a new head, on the device, and what its last layer gets.
        judges_labels: whether the run tells how many labels look wrong.
        ledger: counts how often each test split was opened.
        data: identifies the images, the labels and the splits; None in all processes but the main one.
        run_id: an identifier that is also in every checkpoint of the run.
        overrides: the overrides that the run was started with; None: they are not known, see ``RunIdentity``.
        mlflow_run_id: the MLflow run of a run that is resumed; None for a new run.
        run_time: plans the phases within ``train.max_minutes``; None: there is no limit.
    """

    given: Config
    config: Config
    decisions: tuple[Decision, ...]
    runtime: Runtime
    phases: tuple[Phase, ...]
    splits: Splits
    depth: Depth
    judges_labels: bool
    ledger: TestLedger
    data: DataIdentity | None
    run_id: str
    overrides: list[str] | None
    mlflow_run_id: str | None
    run_time: RunTime | None

    @property
    def network(self) -> Network:
        """The network with its pretrained weights and a new head, on the device."""
        return self.depth.network

    @property
    def run_name(self) -> str:
        """The name of the run in the tracking store."""
        return run_name(self.config, self.phases)

    def _engine(self) -> dict[str, object]:
        compiles = any(phase.compiled for phase in self.phases)
        return {**self.runtime.engine(), "compile": compiles, "frozen_pass": self.config.runtime.frozen_engine}

    def identity(self, mlflow_run_id: str | None) -> RunIdentity:
        """The identity of the run, with the ID that the tracking store gave it; for the main process."""
        assert self.data is not None
        return RunIdentity.of(
            self.given,
            self.data,
            batch_size=self.config.train.images_per_step,
            mlflow_run_id=mlflow_run_id,
            run_id=self.run_id,
            overrides=self.overrides,
            engine=self._engine(),
            head_solver="solved" if any(phase.solved for phase in self.phases) else "sgd",
            head_depth=self.depth.chosen,
            compiled=[phase.name for phase in self.phases if phase.compiled],
            decided=[asdict(decision) for decision in self.decisions],
            train_images=None if self.run_time is None else len(self.splits.train),
        )


def run_name(config: Config, phases: tuple[Phase, ...]) -> str:
    """The name of a run in the tracking store."""
    return f"{config.model.name} {'+'.join(phase.name for phase in phases)}"
