from __future__ import annotations

import math

import pytest
import torch
from conftest import Compose
from timm.loss import BinaryCrossEntropy as TimmBinaryCrossEntropy
from torch.nn import functional as F

from ftexp.config.loss import LOSSES
from ftexp.errors import ConfigError
from ftexp.training.guessing import chance_loss
from ftexp.training.losses import BUILDERS, BinaryCrossEntropy, CrossEntropy, FocalLoss, build_loss

# Probabilities 1/4 and 3/4.
LOGITS = torch.tensor([[0.0, math.log(3.0)]])


@pytest.mark.parametrize(
    ("gamma", "target", "by_hand"),
    [
        (0.0, 0, math.log(4)),
        (2.0, 0, 0.75**2 * math.log(4)),
        (2.0, 1, 0.25**2 * math.log(4 / 3)),
        (1.0, 1, 0.25 * math.log(4 / 3)),
    ],
)
def test_focal_by_hand(gamma: float, target: int, by_hand: float) -> None:
    assert FocalLoss(gamma)(LOGITS, torch.tensor([target])).mean.item() == pytest.approx(by_hand)


def test_focal_on_shares_is_their_weighted_sum() -> None:
    loss = FocalLoss(2.0)(LOGITS, torch.tensor([[0.3, 0.7]])).mean.item()
    assert loss == pytest.approx(0.3 * 0.75**2 * math.log(4) + 0.7 * 0.25**2 * math.log(4 / 3))


def test_focal_has_finite_gradients_where_the_network_is_sure() -> None:
    logits = torch.tensor([[80.0, -80.0]], requires_grad=True)
    for gamma in (0.5, 2.0):
        torch.autograd.backward(FocalLoss(gamma)(logits, torch.tensor([0])).mean)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_bce_by_hand() -> None:
    """Sigmoids 1/2 and 3/4; with a smoothing of 0.2 the targets are 0.9 and 0.1."""
    plain = BinaryCrossEntropy(0.0)(LOGITS, torch.tensor([0])).mean.item()
    assert plain == pytest.approx((math.log(2) + math.log(4)) / 2)
    smooth = BinaryCrossEntropy(0.2)(LOGITS, torch.tensor([0])).mean.item()
    assert smooth == pytest.approx((math.log(2) + 0.1 * math.log(4 / 3) + 0.9 * math.log(4)) / 2)


def test_bce_is_timms() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 5), torch.randint(0, 5, (6,))
    torch.testing.assert_close(
        BinaryCrossEntropy(0.1)(logits, labels).mean, TimmBinaryCrossEntropy(0.1)(logits, labels)
    )


def test_every_loss_of_the_schema_has_its_function() -> None:
    assert BUILDERS.keys() == set(LOSSES.values())


@pytest.mark.parametrize("name", LOSSES)
def test_class_numbers_and_their_one_hot_shares_give_the_same(configure: Compose, name: str) -> None:
    loss_fn = build_loss(configure(f"loss={name}").loss, [1] * 5)
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 5), torch.randint(0, 5, (6,))
    torch.testing.assert_close(loss_fn(logits, labels).mean, loss_fn(logits, F.one_hot(labels, 5).float()).mean)


@pytest.mark.parametrize("name", LOSSES)
def test_parts_of_a_batch_combine_to_the_loss_of_the_whole(configure: Compose, name: str) -> None:
    loss_fn = build_loss(configure(f"loss={name}").loss, [1] * 5)
    logits, labels = sample()
    parts = [loss_fn(logits[rows], labels[rows]) for rows in (slice(0, 5), slice(5, 12))]
    combined = sum(part.total for part in parts) / sum(part.weight for part in parts)
    torch.testing.assert_close(combined, loss_fn(logits, labels).mean)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["loss=focal"], FocalLoss(2.0)),
        (["loss=focal", "loss.gamma=1"], FocalLoss(1.0)),
        (["loss=bce", "loss.label_smoothing=0.2"], BinaryCrossEntropy(0.2)),
        ([], CrossEntropy(0.1)),
        (["loss.label_smoothing=0", "loss.class_weights=balanced"], CrossEntropy(0.0, torch.tensor([0.5, 1.5]))),
    ],
)
def test_settings_reach_the_loss(configure: Compose, overrides: list[str], expected: CrossEntropy) -> None:
    loss_fn = build_loss(configure(*overrides).loss, [30, 10])
    assert loss_fn(LOGITS, torch.tensor([1])).mean == expected(LOGITS, torch.tensor([1])).mean
    assert loss_fn(LOGITS, torch.tensor([1])).total == expected(LOGITS, torch.tensor([1])).total


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=focal", "loss.gamma=-1"], r"loss\.gamma=-1\.0 is not allowed: it must be 0 or above"),
        (["loss.label_smoothing=1"], r"loss\.label_smoothing=1\.0 is not allowed: it must be at least 0 and below 1"),
        (["loss=bce", "loss.label_smoothing=-0.1"], r"loss\.label_smoothing=-0\.1 is not allowed"),
        (["loss.name=focal"], r"loss\.name=focal does not choose the loss\. Use loss=NAME with one of cross_"),
    ],
)
def test_values_out_of_range_are_refused(configure: Compose, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(*overrides)


WEIGHTS = torch.tensor([0.2, 1.0, 3.0, 0.5, 0.3])


def sample(num_samples: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(num_samples, 5, dtype=torch.float64), torch.randint(0, 5, (num_samples,))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_weigh_the_mean_as_torch_does_for_class_numbers(smoothing: float) -> None:
    logits, labels = sample()
    expected = F.cross_entropy(logits, labels, WEIGHTS.double(), label_smoothing=smoothing)
    loss_fn = CrossEntropy(smoothing, WEIGHTS)
    assert loss_fn(logits, labels).mean.item() == pytest.approx(expected.item(), rel=1e-12)
    one_hot = loss_fn(logits, F.one_hot(labels, 5).float())
    assert one_hot.mean.item() == pytest.approx(expected.item(), rel=1e-12)


def test_class_weights_on_shares_by_hand() -> None:
    """The shares before smoothing decide how much a sample counts: 0.3 x 1 + 0.7 x 3, and 1 x 1."""
    logits, shares = LOGITS.repeat(2, 1), torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    loss = CrossEntropy(0.2, torch.tensor([1.0, 3.0]))(logits, shares)
    first = 1 * (0.8 * 0.3 + 0.1) * math.log(4) + 3 * (0.8 * 0.7 + 0.1) * math.log(4 / 3)
    second = 1 * 0.9 * math.log(4) + 3 * 0.1 * math.log(4 / 3)
    assert loss.total.item() == pytest.approx(first + second)
    assert loss.weight.item() == pytest.approx(2.4 + 1.0)


def test_rare_classes_lose_nothing_by_being_shares() -> None:
    """990 and 10 images, and a network that knows nothing: ln 2 either way."""
    labels = torch.tensor([0] * 990 + [1] * 10)
    loss_fn = CrossEntropy(0.0, torch.tensor([0.02, 1.98]))
    for targets in (labels, F.one_hot(labels).float()):
        assert loss_fn(torch.zeros(1000, 2), targets).mean.item() == pytest.approx(math.log(2), rel=1e-5)


MODULES = {"weighted": CrossEntropy(0.1, WEIGHTS), "bce": BinaryCrossEntropy(0.1), "focal": FocalLoss(2.0)}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("shares", [False, True])
def test_parts_combine_to_the_whole(name: str, shares: bool) -> None:
    logits, targets = sample()
    if shares:
        targets = 0.3 * F.one_hot(targets, 5) + 0.7 * F.one_hot(targets.roll(1), 5)
    parts = [MODULES[name](*part) for part in zip(logits.split([1, 4, 7]), targets.split([1, 4, 7]), strict=True)]
    combined = sum(part.total for part in parts) / sum(part.weight for part in parts)
    assert combined.item() == pytest.approx(MODULES[name](logits, targets).mean.item(), rel=1e-12)


@pytest.mark.parametrize("name", MODULES)
def test_half_precision_logits_do_not_round_targets_or_sums(name: str) -> None:
    """Of 100 classes with a smoothing of 0.1, bf16 rounds 0.901 to 0.9023 and 0.001 to 0.0009995."""
    torch.manual_seed(0)
    logits, labels = torch.randn(64, 100).bfloat16(), torch.randint(0, 100, (64,))
    loss_fn = CrossEntropy(0.1, torch.rand(100)) if name == "weighted" else MODULES[name]
    shares = 0.3 * F.one_hot(labels, 100) + 0.7 * F.one_hot(labels.roll(1), 100)
    for targets in (labels, shares):
        with torch.autocast("cpu", torch.bfloat16):
            rounded = loss_fn(logits, targets)
        exact = loss_fn(logits.double(), targets)
        assert rounded.total.dtype == torch.float32
        assert rounded.mean.item() == pytest.approx(exact.mean.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("loss_fn", "shares", "by_hand"),
    [
        (CrossEntropy(0.0), [0.9, 0.1], -0.9 * math.log(0.9) - 0.1 * math.log(0.1)),
        (CrossEntropy(0.0, torch.tensor([0.2, 1.8])), [0.9, 0.1], math.log(2)),  # balanced
        (CrossEntropy(0.2), [0.5, 0.5], math.log(2)),
        (CrossEntropy(0.2), [0.9, 0.1], -0.82 * math.log(0.82) - 0.18 * math.log(0.18)),
        (BinaryCrossEntropy(0.0), [0.01] * 100, -0.01 * math.log(0.01) - 0.99 * math.log(0.99)),
        (FocalLoss(2.0), [0.25] * 4, 0.75**2 * math.log(4)),
        (FocalLoss(2.0), [0.9, 0.1], 0.0878171),  # not at outputs of 0.9 and 0.1, which cost 0.19
    ],
)
def test_the_cost_of_guessing_is_that_of_the_loss_itself(
    loss_fn: CrossEntropy, shares: list[float], by_hand: float
) -> None:
    assert chance_loss(loss_fn, torch.tensor(shares, dtype=torch.float64)) == pytest.approx(by_hand, rel=1e-6)
