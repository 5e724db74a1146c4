"""What guessing reaches, without a look at the images: the curves of a run are read against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ftexp.config import Config
from ftexp.data.samples import Sample
from ftexp.evaluation.diagnosis import Setting
from ftexp.finetune.optimizers import eager
from ftexp.training.losses import Loss, build_loss


def reference_values(config: Config, train: Sequence[Sample], val: Sequence[Sample]) -> Setting:
    """The reference values for these samples and the configured loss.

    Args:
        config: the configuration of the run.
        train: the training samples.
        val: the validation samples.
    """
    counts = Counter(sample.label for sample in train)
    shares = torch.tensor(list(counts.values()), dtype=torch.float64) / len(train)
    if config.data.sampler == "balanced":
        shares = torch.full_like(shares, 1 / len(shares))
    loss = build_loss(config.loss, list(counts.values()))
    truth = Counter(sample.label for sample in val)
    return Setting(
        metric=config.train.metric,
        num_val=len(val),
        chance_loss=chance_loss(loss, shares),
        start_loss=loss(torch.zeros_like(shares)[None], shares[None]).mean.item(),
        chance_accuracy=max(truth.values()) / len(val),
    )


def chance_loss(loss: Loss, shares: Tensor) -> float:
    """The lowest mean loss that is possible if the logits are the same for every sample.

    Every loss here is linear in its targets. So the mean over all samples is the loss of one sample whose target is the
    frequencies of the classes.

    Args:
        loss: the loss.
        shares: the frequencies of the classes, float64 [C], all above 0.
    """
    logits = shares.log()[None].requires_grad_()
    optimizer = eager(torch.optim.LBFGS)(
        [logits], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        mean = loss(logits, shares[None]).mean
        torch.autograd.backward(mean)
        return mean

    optimizer.step(closure)
    with torch.no_grad():
        return loss(logits, shares[None]).mean.item()
