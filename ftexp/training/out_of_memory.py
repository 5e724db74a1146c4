"""Memory that runs out in the middle of a run, as a message that says what fits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ftexp.config import TrainConfig
from ftexp.errors import DeviceError, UserError, out_of_memory
from ftexp.machine.runtime import Runtime


@contextmanager
def out_of_memory_explained(settings: TrainConfig, runtime: Runtime) -> Iterator[None]:
    """Turn the error of whichever allocator had no more memory into a message with the way out.

    Args:
        settings: with the batch size in use.

    Raises:
        DeviceError: within, when the memory of the device or of the machine runs out.
    """
    try:
        yield
    except Exception as error:
        cause = out_of_memory(error)
        if isinstance(error, UserError) or cause is None:
            raise
        raise DeviceError(_advice(settings, runtime, cause)) from error


def _advice(settings: TrainConfig, runtime: Runtime, error: BaseException) -> str:
    size, said = settings.images_per_step, str(error).strip().partition("\n")[0][:200]
    ways = ["fewer learning blocks", "a smaller model or data.image_size"]
    if size % (2 * runtime.ranks.size) == 0:
        half = f"train.batch_size={size // 2} train.accumulate={2 * settings.accumulate}, which makes the same updates"
        ways = [half, *ways]
    return (
        f"Out of memory on {runtime.device} with train.batch_size={size}. Start again with {', '.join(ways[:-1])} or "
        f"{ways[-1]}. ({said})"
    )
