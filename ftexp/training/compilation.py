"""Compiled forward passes: one graph per phase and mode, and eager ones where compiling fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch._functorch import config as functorch_config

from ftexp.config.machine import CUDA_GRAPHS, RuntimeConfig
from ftexp.errors import out_of_memory
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import HEAD
from ftexp.training.inputs.batches import Forward, Inputs

log = logging.getLogger(__name__)

# Batches of a phase from which on runtime.compile=auto compiles. To compile a training and a scoring pass takes half a
# minute or more; it then saves some 10 to 30 ms of a step on a GPU. An estimate: no GPU has been measured yet.
MIN_BATCHES = 1000
# Characters of a compiler's message that are shown.
MAX_REASON = 200


def forward_of(phase: Phase, inputs: Inputs, settings: RuntimeConfig) -> Forward:
    """What a phase calls with its batches: compiled where that is asked for, or, with ``auto``, where it pays."""
    runtime = inputs.runtime
    if not runtime.compile:
        return inputs.forward
    if settings.compile == "auto" and (reason := _why_not(phase, inputs)) is not None:
        log.info("compile off in %s: %s; runtime.compile=true compiles all the same", phase.name, reason)
        return inputs.forward
    own = runtime.ranks.local_batch_size
    sizes = own(inputs.train.num_images(0)), own(inputs.val.num_images(0))
    return CompiledForward(inputs.forward, *sizes, mode=settings.compile_mode)


def _why_not(phase: Phase, inputs: Inputs) -> str | None:
    """Why compiling costs more time than it saves; by what is to be done, and never by a clock."""
    if phase.learning == (HEAD,) and inputs.forward is not inputs.network.module:
        return "a head on kept activations is too small to gain by it"
    num_batches = phase.epochs * inputs.train.num_batches
    if num_batches < MIN_BATCHES:
        return f"it pays from {MIN_BATCHES:,} batches on, and here are {num_batches:,}"
    return None


class CompiledForward:
    """Logits of batches by compiled code, made at the first whole batch of each mode (training, scoring).

    A smaller last batch costs no code of its own: to be scored it is filled up, in training it goes through the network
    as it is, which BatchNorm's statistics and the gradient's mean need. The network itself stays as it is: whoever
    calls it by itself runs no compiled code.

    Args:
        forward: the network, or its suffix.
        training_size: images of this rank in a whole batch of training; ``scoring_size``: of validation.
        mode: torch.compile's.
        backend: torch.compile's.
    """

    def __init__(
        self,
        forward: Forward,
        training_size: int,
        scoring_size: int,
        mode: str = "default",
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        torch.compiler.reset()  # other blocks learn now: graphs of the phase before would only fill the cache
        self._eager = forward
        self._training_size = training_size
        self._scoring_size = scoring_size
        self._has_graphs = mode in CUDA_GRAPHS
        options: dict[str, Any] = {"backend": backend, "dynamic": False}
        if backend == "inductor":
            options["mode"] = mode
        # A function and not the module: compiled in place, the module would be compiled for every other caller, too.
        self._compiled: Forward | None = torch.compile(lambda inputs: forward(inputs), **options)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs [B, ...] -> logits [B, classes]."""
        trains = torch.is_grad_enabled()
        size = self._training_size if trains else self._scoring_size
        if self._compiled is None or len(inputs) == 0 or (trains and len(inputs) != size):
            return self._eager(inputs)
        whole = _filled_up(inputs, size) if len(inputs) < size else inputs
        if self._has_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            # By default the backward pass would be compiled at its first call, where nobody catches what goes wrong.
            with functorch_config.patch(force_non_lazy_backward_lowering=True):
                logits = self._compiled(whole)
        except Exception as error:  # compilers raise nearly anything; what is wrong in eager mode too comes again there
            if out_of_memory(error) is not None:
                raise  # it says nothing about the compiler, and eager code would need as much
            self._give_up(error)
            return self._eager(inputs)
        logits = logits[: len(inputs)]
        return logits.clone() if self._has_graphs else logits

    def _give_up(self, error: Exception) -> None:
        self._compiled = None
        reason = " ".join(str(error).split())[:MAX_REASON]
        log.warning("compile %s: %s; going on without (runtime.compile=false).", type(error).__name__, reason)


def _filled_up(inputs: torch.Tensor, size: int) -> torch.Tensor:
    """A batch of ``size`` in the layout of the inputs [B, ...], as the code expects it; the last row comes again."""
    row = inputs[0]
    spread = 1 + sum((length - 1) * stride for length, stride in zip(row.shape, row.stride(), strict=True))
    row = row if spread == row.numel() else row.contiguous()
    strides = (row.numel(), *row.stride())  # one row after the other, as in a whole batch
    whole = torch.empty_strided((size, *row.shape), strides, dtype=row.dtype, device=row.device)
    whole[: len(inputs)] = inputs
    whole[len(inputs) :] = inputs[-1:]
    return whole
