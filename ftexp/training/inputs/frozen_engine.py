"""What runs the frozen blocks: torch's own operators, or on the CPU ONNX Runtime (``runtime.frozen_engine``).

With ``auto``, the numbers of images and blocks decide, and never measured time, so that equal commands take equal
engines. The file
that is exported is kept in the cache, so that a later run with the same frozen blocks prepares nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ftexp.data.loading.tensor_file import Kept
from ftexp.data.loading.tensor_store import Append, StoreError, TensorStore
from ftexp.errors import DeviceError
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.models.onnx_prefix import ExportError, OnnxPrefix, export_prefix
from ftexp.models.prefix import Prefix
from ftexp.training.inputs.batches import Forward
from ftexp.training.inputs.prefix_key import EAGER, ONNXRUNTIME, engine_digest

log = logging.getLogger(__name__)

# Images times frozen blocks from which ONNX Runtime pays with runtime.frozen_engine=auto (benchmarks/results.md, "The
# frozen pass"): to export takes 1 to 15 s in one thread, and each block of an image is 0.5 to 4 ms faster.
LEAST_WORK = 6_000
# Stands where the layout would: these blocks cannot be exported, and the file holds the reason in place of them.
REFUSED = (-1,)


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs the frozen blocks of a network.

    Attributes:
        prefix: the frozen blocks.
        file: the exported blocks; None: torch runs them.
        layout: of the activations, for ``OnnxPrefix``.
    """

    prefix: Prefix
    file: Kept | None = None
    layout: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """``eager`` or ``onnxruntime``."""
        return EAGER if self.file is None else ONNXRUNTIME

    def open(self) -> Forward:
        """The function from images [B, 3, H, W] to activations; it takes memory as long as it is held."""
        return self.prefix if self.file is None else OnnxPrefix(_content(self.file), self.layout)


def is_possible(runtime: Runtime) -> bool:
    """Whether ONNX Runtime can run frozen blocks."""
    return runtime.device.type == "cpu" and runtime.precision == "fp32"


def choose_engine(asked: str, num_images: int, num_blocks: int, runtime: Runtime) -> str:
    """``eager`` or ``onnxruntime``.

    Args:
        asked: ``runtime.frozen_engine``.
        num_images: number of training and validation images.
        num_blocks: number of frozen blocks.
        runtime: the device and the precision.

    Raises:
        DeviceError: if ONNX Runtime is asked for where it cannot be used.
    """
    if asked == ONNXRUNTIME and not is_possible(runtime):
        raise DeviceError(
            f"runtime.frozen_engine=onnxruntime needs the CPU and fp32, and this run is on {runtime.device} in "
            f"{runtime.precision}. Use runtime.frozen_engine=auto or eager."
        )
    pays = asked == "auto" and is_possible(runtime) and num_images * num_blocks >= LEAST_WORK
    return ONNXRUNTIME if asked == ONNXRUNTIME or pays else EAGER


def engine_of(asked: str, network: Network, prefix: Prefix, frozen: str, store: TensorStore) -> Engine:
    """The engine, with its exported file from the cache or new; a log line says so if it has to be torch after all.

    Args:
        asked: ``eager`` or ``onnxruntime``.
        network: the network.
        prefix: its frozen blocks, in eval mode.
        frozen: the name of the prefix from ``prefix_digest``.
        store: keeps the file.
    """
    if asked == EAGER:
        return Engine(prefix)

    @cache
    def exported() -> tuple[bytes, tuple[int, ...]]:
        started = time.perf_counter()
        try:
            written = export_prefix(network, prefix)
        except ExportError as error:
            return str(error).encode(), REFUSED
        log.info("cache   the frozen blocks were exported for ONNX Runtime, %.1f s", time.perf_counter() - started)
        return written

    def fill(append: Append) -> Mapping[str, Tensor]:
        content, layout = exported()
        append(torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, 1))
        return {"layout": torch.tensor(layout)}

    try:
        kept = store.get(engine_digest(frozen, asked), fill)
    except StoreError:  # it is larger than the cache, or the folder cannot be used, which the store has logged
        kept = TensorStore(None, 0).get("", fill)
    if (layout := tuple(kept.notes["layout"].tolist())) == REFUSED:
        reason = _content(kept).decode()
        log.warning("cache   torch runs the frozen blocks of %s instead of ONNX Runtime: %s", network.name, reason)
        return Engine(prefix)
    return Engine(prefix, kept, layout)


def _content(kept: Kept) -> bytes:
    content = kept.rows.numpy().tobytes()
    kept.release()
    return content
