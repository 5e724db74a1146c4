"""A training step: the gradients of batches, and an update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ftexp.machine.runtime import Runtime
from ftexp.training.inputs.batches import Forward
from ftexp.training.losses import Loss, LossSum
from ftexp.training.whole_batches import WholeBatches


class Step:
    """A training step: gradients of one batch or several, then clipping and an update.

    Args:
        forward: function from inputs [B, ...] to logits [B, C].
        optimizer: the optimizer.
        loss_fn: function from logits and targets to the loss as a sum and its denominator.
        runtime: the device, the precision and the ranks.
        clip_norm: largest gradient norm over all parameters of the optimizer; None: no clipping.
        before_update: are called when all gradients are complete, before they are clipped.
        after_update: are called after every update, in this order.

    Attributes:
        parts: in how many parts ``backward_in_parts`` computes a batch; changed by ``double_parts``.
    """

    def __init__(
        self,
        forward: Forward,
        optimizer: Optimizer,
        loss_fn: Loss,
        runtime: Runtime,
        *,
        clip_norm: float | None = None,
        before_update: Sequence[Callable[[], object]] = (),
        after_update: Sequence[Callable[[], object]] = (),
    ) -> None:
        self.runtime = runtime
        self.parts = 1
        self._forward = forward
        self._optimizer = optimizer
        self._loss_fn = loss_fn
        self._clip_norm = clip_norm
        self._before_update = tuple(before_update)
        self._after_update = tuple(after_update)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "fp16")
        # Denominators of the batches since the last update, each over all ranks.
        self._weights: list[torch.Tensor | int] = []

    def backward(
        self, inputs: torch.Tensor, labels: torch.Tensor, num_images: int | None = None, *, completes: bool = True
    ) -> LossSum:
        """Add the gradients of a batch to those since the last update.

        Args:
            inputs: this rank's part of the batch, [B, ...].
            labels: its targets, int64 [B] or float [B, C].
            num_images: images in the batch over all ranks; None: this rank has all of them.
            completes: whether an update follows; if not, gradients are not synchronised between the ranks.

        Returns:
            The loss of this rank's part, on the device.
        """
        if not self._weights:
            self._optimizer.zero_grad(set_to_none=True)
        with self._apart(completes), self.runtime.autocast():
            loss = self._loss_fn(self._forward(inputs), labels)
        ranks = self.runtime.ranks
        # An int is the number of samples, whose sum over all ranks is known without communication.
        own = loss.weight
        self._weights.append((num_images or own) if isinstance(own, int) else ranks.all_reduce_sum(own))
        # Divided by the first batch's denominator, so that the sum fits into fp16. The gradients are averaged over the
        # ranks, so each is multiplied by their number.
        torch.autograd.backward(self.scaler.scale(loss.total * (ranks.size / self._weights[0])))
        return LossSum(loss.total.detach(), own)

    @property
    def has_gradients(self) -> bool:
        """Whether there are gradients of batches since the last update."""
        return bool(self._weights)

    def drop_gradients(self) -> None:
        """Forget the gradients since the last update, also those of a backward pass that failed."""
        self._weights.clear()
        self._optimizer.zero_grad(set_to_none=True)

    def double_parts(self) -> None:
        """Compute batches in twice as many parts from here on, each padded to the size of a part only."""
        self.parts *= 2
        if isinstance(self._forward, WholeBatches):
            self._forward.parts = self.parts

    def _apart(self, completes: bool) -> AbstractContextManager[None]:
        if isinstance(self._forward, DistributedDataParallel) and not completes:
            return self._forward.no_sync()
        return nullcontext()

    def update(self) -> torch.Tensor:
        """Update the parameters with the gradient of the mean loss over all samples since the last update.

        Returns:
            The gradient norm before clipping; it is not finite if fp16's scaler skipped the update.
        """
        self.scaler.unscale_(self._optimizer)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if len(self._weights) > 1:
            torch._foreach_mul_(gradients, self._weights[0] / sum(self._weights))
        self._weights.clear()
        for call in self._before_update:
            call()
        norm = nn.utils.get_total_norm(gradients)
        if self._clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, norm)
        self.scaler.step(self._optimizer)
        self.scaler.update()
        for call in self._after_update:
            call()
        return norm
