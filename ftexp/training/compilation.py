"""Compiled forward passes: one graph per phase and mode, and eager ones where compiling fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from ftexp.training.batches import Forward

log = logging.getLogger(__name__)

# Modes whose outputs lie in memory that the next call writes over.
CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
# Characters of a compiler's message that are shown.
MAX_REASON = 200


class CompiledForward:
    """Logits of batches by compiled code, made at the first call of each mode (training, scoring).

    A smaller last batch to score is filled up, so that it needs no code of its own; in training there is none.

    Args:
        forward: the network, which is compiled in place so that the names in its state dict stay plain, or its suffix.
        batch_size: of all batches but the last.
        mode: torch.compile's.
        backend: torch.compile's.
    """

    def __init__(
        self, forward: Forward, batch_size: int, mode: str = "default", backend: str | Callable[..., Any] = "inductor"
    ) -> None:
        torch.compiler.reset()  # other blocks learn now: graphs of the phase before would only fill the cache
        self._eager = forward
        self._batch_size = batch_size
        self._has_graphs = mode in CUDA_GRAPHS
        options: dict[str, Any] = {"backend": backend, "dynamic": False}
        if backend == "inductor":
            options["mode"] = mode
        self._compiled: Forward | None
        if isinstance(forward, torch.nn.Module):
            forward.compile(**options)
            self._compiled = forward
        else:
            self._compiled = torch.compile(forward, **options)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs [B, ...] -> logits [B, classes]."""
        if self._compiled is None:
            return self._eager(inputs)
        missing = 0 if torch.is_grad_enabled() else self._batch_size - len(inputs)
        whole = torch.cat([inputs, inputs[-1:].expand(missing, *inputs.shape[1:])]) if missing > 0 else inputs
        if self._has_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            logits = self._compiled(whole)
        except Exception as error:  # compilers raise nearly anything; what is wrong in eager mode too comes again there
            self._give_up(error)
            return self._eager(inputs)
        logits = logits[: len(inputs)]
        return logits.clone() if self._has_graphs else logits

    def _give_up(self, error: Exception) -> None:
        self._compiled = None
        if isinstance(self._eager, torch.nn.Module):
            self._eager._compiled_call_impl = None
        reason = " ".join(str(error).split())[:MAX_REASON]
        log.warning("compile %s: %s; going on without (runtime.compile=false).", type(error).__name__, reason)
