"""What follows from the data and the network: batch size, ``auto``, engine, time, depth of the head, compiling."""

from __future__ import annotations

from dataclasses import dataclass

from ftexp.config import Config
from ftexp.data.splitting.splits import Splits
from ftexp.finetune.batchnorm import synchronise_statistics
from ftexp.finetune.phases import Phase
from ftexp.finetune.recipe import Decision
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.preparation.follow_recipe import follow_recipe
from ftexp.preparation.head_depth import Depth, settle_depth
from ftexp.preparation.head_solver import keep_solvable, solved_as_in
from ftexp.preparation.limit_time import limit_time
from ftexp.run_identity import RunIdentity
from ftexp.training.batch_size import settle_batch_size
from ftexp.training.compile_choice import choose_compiled
from ftexp.training.engine_choice import confirm_engine, settle_engine
from ftexp.training.kernel_search import choose_kernel_search
from ftexp.training.run_time import RunTime


@dataclass(frozen=True, slots=True)
class Settled:
    """What is trained, on which images and how, once nothing is ``auto`` any more.

    Attributes:
        config: the configuration, in which everything has a value that was given as ``auto``.
        decisions: what ``auto`` came to, except for the batch size.
        phases: the phases that the stage resolves to, in the order of training.
        splits: the samples of the training, validation and test splits; of the training set those that there is time
            for.
        depth: the network with its pretrained weights and a new head, on the device, and what its last layer gets.
        run_time: plans the phases within ``train.max_minutes``; None: there is no limit.
    """

    config: Config
    decisions: tuple[Decision, ...]
    phases: tuple[Phase, ...]
    splits: Splits
    depth: Depth
    run_time: RunTime | None

    @property
    def network(self) -> Network:
        """The network with its pretrained weights and a new head, on the device."""
        return self.depth.network


def settle(
    config: Config,
    planned: tuple[Phase, ...],
    phases: tuple[Phase, ...],
    network: Network,
    splits: Splits,
    runtime: Runtime,
    clock: tuple[float, float],
    begun: RunIdentity | None,
    *,
    score_test: bool,
) -> Settled:
    """Give everything a value that was ``auto``; a resumed run keeps what it began with. All ranks have to call it.

    Args:
        config: the configuration as the user gave it.
        planned: the phases by the stage alone.
        phases: the same, the heads of some of which are solved if they can be.
        network: the network on its device.
        splits: the samples.
        runtime: the device and the ranks.
        clock: when the command began, by ``time.monotonic``, and the seconds from there to the beginning of the run.
        begun: the identity of the run, if it is resumed.
        score_test: whether the test split will be scored after training.
    """
    num_train = len(splits.train)
    phases = keep_solvable(config, planned, phases, network, num_train)
    # Before BatchNorm is replaced by SyncBatchNorm: if one rank ran out of memory, the others would wait for it.
    batch_size = begun.batch_size if begun else None
    settled = settle_batch_size(config, network, phases, runtime, num_train, batch_size)
    settled, planned, decisions = follow_recipe(
        settled, network, phases, num_train, begun.decisions(config) if begun else None
    )
    phases = solved_as_in(phases, planned)
    if runtime.ranks.size > 1 and any(phase.bn_policy.update_running_statistics for phase in phases):
        network.module = synchronise_statistics(network.module, runtime.device)
    engine = begun.frozen_engine if begun else None
    settled = settle_engine(settled, network, phases, num_train + len(splits.val), runtime, engine)
    run_time, in_time = limit_time(settled, network, splits, phases, runtime, clock, begun, score_test=score_test)
    num_train = len(in_time.train)
    depth = settle_depth(settled, network, in_time, phases, runtime, begun.head_depth if begun else None)
    phases = keep_solvable(config, planned, phases, depth.network, num_train)
    settled = confirm_engine(settled, depth.network, phases, runtime, depth.frozen_engine)
    compiled = begun.compiled if begun else None
    phases = choose_compiled(settled, phases, depth.network, num_train, runtime, compiled)
    choose_kernel_search(settled, phases, depth.network, num_train, runtime)
    if run_time is not None:
        run_time.settle(settled, depth.network, phases)
    return Settled(settled, decisions, phases, in_time, depth, run_time)
