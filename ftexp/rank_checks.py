"""Settings that several processes cannot train with together."""

from __future__ import annotations

from ftexp.config import Config
from ftexp.config.machine import CUDA_GRAPHS, WITHOUT_GRAPHS
from ftexp.errors import ConfigError
from ftexp.machine.distributed import Ranks
from ftexp.machine.runtime import Runtime
from ftexp.run_identity import RunIdentity


def check_shares(config: Config, ranks: Ranks, begun: RunIdentity | None = None) -> None:
    """Refuse a batch that the processes cannot share evenly.

    Args:
        begun: of a run that is resumed, which keeps its batch size.

    Raises:
        ConfigError: with sizes that they can; or, of a run that is resumed, with numbers of processes.
    """
    size = begun.batch_size if begun else config.train.batch_size
    if not isinstance(size, int) or size % ranks.size == 0:
        return
    if begun is not None:
        shared = f"{ranks.size} processes cannot share evenly. Go on with a number of processes that divides {size}."
        raise ConfigError(f"The run has batches of {size} images, which {shared}")
    below = size // ranks.size * ranks.size
    fitting = f"{below} or {below + ranks.size}" if below else f"{ranks.size}"
    raise ConfigError(
        f"train.batch_size={size} is that of all {ranks.size} processes together, which cannot share it evenly. "
        f"Take a multiple of {ranks.size}: {fitting}."
    )


def check_graphs(config: Config, runtime: Runtime) -> None:
    """Refuse CUDA graphs in several processes.

    Raises:
        ConfigError: with the modes that go.
    """
    settings = config.runtime
    if runtime.compile and runtime.ranks.size > 1 and settings.compile_mode in CUDA_GRAPHS:
        raise ConfigError(
            f"runtime.compile_mode={settings.compile_mode} records CUDA graphs, and the {runtime.ranks.size} processes "
            "exchange their gradients in the middle of the backward pass, which fails with graphs. Take "
            f"{WITHOUT_GRAPHS}."
        )
