"""Checks of settings that are not possible when several processes train together."""

from __future__ import annotations

from ftexp.config import Config
from ftexp.config.machine import CUDA_GRAPHS, WITHOUT_GRAPHS
from ftexp.errors import ConfigError
from ftexp.machine.distributed import Ranks
from ftexp.machine.runtime import Runtime
from ftexp.run_identity import RunIdentity


def check_shares(config: Config, ranks: Ranks, begun: RunIdentity | None = None) -> None:
    """Refuse a batch that cannot be divided evenly among the processes.

    Args:
        config: the configuration of the run.
        ranks: the processes that train together.
        begun: the identity of the run to resume, which keeps its batch size.

    Raises:
        ConfigError: naming batch sizes that are possible or, for a run that is resumed, numbers of processes.
    """
    size = begun.batch_size if begun else config.train.batch_size
    if not isinstance(size, int) or size % ranks.size == 0:
        return
    if begun is not None:
        advice = f"Resume it with a number of processes that divides {size}."
        raise ConfigError(f"The run has batches of {size} images, which {ranks.size} processes cannot share. {advice}")
    below = size // ranks.size * ranks.size
    fitting = f"{below} or {below + ranks.size}" if below else f"{ranks.size}"
    raise ConfigError(
        f"train.batch_size={size} is the batch size of all {ranks.size} processes together, which cannot share it "
        f"evenly. Use a multiple of {ranks.size}: {fitting}."
    )


def check_graphs(config: Config, runtime: Runtime) -> None:
    """Refuse CUDA graphs in several processes.

    Raises:
        ConfigError: naming the compile modes that are possible.
    """
    settings = config.runtime
    if runtime.compile and runtime.ranks.size > 1 and settings.compile_mode in CUDA_GRAPHS:
        raise ConfigError(
            f"runtime.compile_mode={settings.compile_mode} records CUDA graphs, and the {runtime.ranks.size} processes "
            "exchange their gradients during the backward pass, which fails with CUDA graphs. Use "
            f"{WITHOUT_GRAPHS}."
        )
