"""Turns an out-of-memory error during training into a message that says what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ftexp.config import TrainConfig
from ftexp.errors import DeviceError, UserError, out_of_memory
from ftexp.machine.runtime import Runtime


@contextmanager
def out_of_memory_explained(settings: TrainConfig, runtime: Runtime) -> Iterator[None]:
    """Turn an out-of-memory error of the device or of the machine into a message that says what to change.

    Args:
        settings: the settings of training, with the batch size in use.
        runtime: the device.

    Raises:
        DeviceError: if memory runs out within the ``with``.
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
    ways = ["train.batch_size=auto, which measures what fits", "fewer trainable blocks"]
    ways.append("a smaller model or data.image_size")
    if size % (2 * runtime.ranks.size) == 0:
        half = f"train.batch_size={size // 2} train.accumulate={2 * settings.accumulate}, which makes the same updates"
        ways = [half, *ways]
    return (
        f"Out of memory on {runtime.device} with train.batch_size={size}. Start again with {', '.join(ways[:-1])} or "
        f"{ways[-1]}. ({said})"
    )
