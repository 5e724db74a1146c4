"""Which phases are compiled (``runtime.compile``).

With ``auto``, the numbers of steps, of their images and of trained blocks decide, never measured time, so that equal
commands compile equal phases.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

from ftexp.config import Config
from ftexp.errors import ConfigError
from ftexp.finetune.batchnorm import takes_batch_statistics
from ftexp.finetune.epochs import num_steps
from ftexp.finetune.phases import Phase
from ftexp.machine.device_kinds import KINDS, CompileCost
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.training.inputs.prefix_cache import why_views_differ

log = logging.getLogger(__name__)

# A frozen block that runs in every step costs and saves about a third of a trained one: it has no backward pass.
FORWARD_SHARE = 1 / 3


def choose_compiled(
    config: Config,
    phases: Sequence[Phase],
    network: Network,
    num_train: int,
    runtime: Runtime,
    begun: Collection[str] | None = None,
) -> tuple[Phase, ...]:
    """Mark the phases to be compiled; for ``auto``, log lines say which, and why. A solved phase has no steps.

    Args:
        config: the configuration of the run, with its batch size.
        phases: the planned phases.
        network: the network.
        num_train: number of training images.
        runtime: the device and the processes.
        begun: the names of the phases that are compiled in the run that is resumed; None: the run is new.

    Raises:
        ConfigError: if a phase has to be compiled that has SyncBatchNorm, at which torch breaks its graphs
            (pytorch#161302) or fails (pytorch#107372).
    """
    stepped = [phase for phase in phases if not phase.solved]
    synchronised = {
        phase.name for phase in stepped if runtime.ranks.size > 1 and takes_batch_statistics(network, phase)
    }
    if config.runtime.compile is True and synchronised:
        raise ConfigError(
            f"runtime.compile=true: torch does not compile SyncBatchNorm, which {', '.join(sorted(synchronised))} "
            "needs because several processes train together. Use runtime.compile=auto, bn_policy=eval or one process."
        )
    if config.runtime.compile != "auto":
        chosen = {phase.name for phase in stepped if config.runtime.compile}
    elif isinstance(cost := KINDS[runtime.device.type].compiling, str):
        chosen = set()
        if stepped:  # on a CPU nobody expects compiling, so run.json alone says it
            level = logging.DEBUG if runtime.device.type == "cpu" else logging.INFO
            log.log(level, "compile off: %s (runtime.compile=auto)", cost)
    else:
        if begun is not None:
            chosen = set(begun) - synchronised  # a resumed run may have more processes than it began with
            kept = ", ".join(name for name in begun if name in chosen)
            log.info("compile as the run began: %s (runtime.compile=auto)", kept or "no phase")
        else:
            open_to_it = [phase for phase in stepped if phase.name not in synchronised]
            chosen = {phase.name for phase in open_to_it if _pays(phase, config, network, num_train, runtime, cost)}
        for name in sorted(synchronised):
            log.info("compile off in %s: torch does not compile SyncBatchNorm (runtime.compile=auto)", name)
    return tuple(replace(phase, compiled=phase.name in chosen) for phase in phases)


def blocks_of_step(phase: Phase, config: Config, network: Network) -> tuple[int, int]:
    """How many blocks, the head excepted, a training step of a phase trains, and how many frozen ones it also runs."""
    first = network.names.index(phase.learning[0])
    frozen = first if config.runtime.cache == "off" or why_views_differ(phase.augment) is not None else 0
    return len(phase.learning) - 1, frozen


def _pays(phase: Phase, config: Config, network: Network, num_train: int, runtime: Runtime, cost: CompileCost) -> bool:
    steps = num_steps(phase, network, config.train, num_train, runtime.ranks.size)
    trained, frozen = blocks_of_step(phase, config, network)
    blocks = len(network.names) - 1
    share = (trained + FORWARD_SHARE * frozen) / blocks
    if share == 0:
        reason = "a head on cached activations is too small to gain from it"
        log.info("compile off in %s: %s (runtime.compile=auto)", phase.name, reason)
        return False
    own = runtime.ranks.local_batch_size(int(config.train.batch_size))
    least = cost.least_steps(share, own)
    log.info(
        "compile %s in %s: it saves time from %s steps on if %d of %d blocks are trained%s, and there are %s "
        "(runtime.compile=auto)",
        "on" if steps >= least else "off",
        phase.name,
        f"{least:,}",
        trained,
        blocks,
        f" and {frozen} more run" if frozen else "",
        f"{steps:,}",
    )
    return steps >= least
