"""Compiled forward passes: one graph per phase and mode, with a fallback to eager mode if compiling fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._functorch import config as functorch_config

from ftexp.config.machine import CUDA_GRAPHS, RuntimeConfig
from ftexp.errors import out_of_memory
from ftexp.finetune.phases import Phase
from ftexp.training.folding import FoldedForward, folds
from ftexp.training.inputs.batches import Forward, Inputs
from ftexp.training.whole_batches import filled_up, whole_batches

log = logging.getLogger(__name__)

# Length to which a compiler's message is cut.
MAX_REASON = 200


@contextmanager
def phase_forward(phase: Phase, inputs: Inputs, settings: RuntimeConfig) -> Iterator[Forward]:
    """The forward of a phase, compiled for whole batches if the phase is; the end of the ``with`` frees its graphs.

    Args:
        phase: the phase.
        inputs: the network and the batches of the phase.
        settings: ``runtime``.
    """
    runtime = inputs.runtime
    own = runtime.ranks.local_batch_size
    sizes = own(inputs.train.num_images(0)), own(inputs.val.num_images(0))
    if not phase.compiled:
        module, forward = inputs.network.module, inputs.forward
        if folds(phase, settings, runtime.device):
            forward = FoldedForward(forward, module, runtime)
        yield whole_batches(forward, module, sizes[0], runtime)
        return
    try:
        compiled = CompiledForward(inputs.forward, *sizes, mode=settings.compile_mode)
        yield whole_batches(compiled, inputs.network.module, sizes[0], runtime)
    finally:
        torch.compiler.reset()  # the memory of CUDA graphs, too, which the next phase or trial may need


class CompiledForward:
    """Runs a forward compiled; each mode (training, scoring) is compiled at its first full batch.

    A smaller last batch is not compiled separately. In scoring it is padded to the full size. In training it runs in
    eager mode, because padding would change BatchNorm's statistics; ``WholeBatches`` pads it before where it does not.
    The network itself is not changed: calls that do not go through this object run in eager mode.

    Args:
        forward: the network, or its suffix.
        training_size: images of this rank in a full training batch.
        scoring_size: images of this rank in a full validation batch.
        mode: the mode of torch.compile.
        backend: the backend of torch.compile.
    """

    def __init__(
        self,
        forward: Forward,
        training_size: int,
        scoring_size: int,
        mode: str = "default",
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        torch.compiler.reset()  # graphs of another forward are of no use, and would fill the cache
        self._eager = forward
        self._training_size = training_size
        self._scoring_size = scoring_size
        self._has_graphs = mode in CUDA_GRAPHS
        options: dict[str, Any] = {"backend": backend, "dynamic": False}
        if backend == "inductor":
            options["mode"] = mode
        # A function, not the module: a module that is compiled in place is compiled for all other callers too.
        self._compiled: Forward | None = torch.compile(lambda inputs: forward(inputs), **options)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs [B, ...] -> logits [B, classes]."""
        trains = torch.is_grad_enabled()
        size = self._training_size if trains else self._scoring_size
        if self._compiled is None or len(inputs) == 0 or (trains and len(inputs) != size):
            return self._eager(inputs)
        whole = filled_up(inputs, size) if len(inputs) < size else inputs
        if self._has_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            # By default the backward pass is compiled at its first call, where its errors would not be caught.
            with functorch_config.patch(force_non_lazy_backward_lowering=True):
                logits = self._compiled(whole)
        except Exception as error:  # compilers raise nearly any exception; the network's own errors recur in eager mode
            if out_of_memory(error) is not None:
                raise  # this is not the compiler's fault, and eager mode would need as much memory
            self._give_up(error)
            return self._eager(inputs)
        logits = logits[: len(inputs)]
        return logits.clone() if self._has_graphs else logits

    def _give_up(self, error: Exception) -> None:
        self._compiled = None
        reason = " ".join(str(error).split())[:MAX_REASON]
        log.warning("compile %s: %s; continuing in eager mode (runtime.compile=false).", type(error).__name__, reason)
