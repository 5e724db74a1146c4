from __future__ import annotations

import math

import pytest
import torch
from conftest import Compose
from timm.loss import BinaryCrossEntropy as TimmBinaryCrossEntropy
from torch.nn import functional as F

from ftexp.errors import ConfigError
from ftexp.training.losses import BinaryCrossEntropy, FocalLoss, build_loss

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
    assert FocalLoss(gamma)(LOGITS, torch.tensor([target])).item() == pytest.approx(by_hand)


def test_focal_on_shares_is_their_weighted_sum() -> None:
    loss = FocalLoss(2.0)(LOGITS, torch.tensor([[0.3, 0.7]])).item()
    assert loss == pytest.approx(0.3 * 0.75**2 * math.log(4) + 0.7 * 0.25**2 * math.log(4 / 3))


def test_focal_has_finite_gradients_where_the_network_is_sure() -> None:
    logits = torch.tensor([[80.0, -80.0]], requires_grad=True)
    for gamma in (0.5, 2.0):
        torch.autograd.backward(FocalLoss(gamma)(logits, torch.tensor([0])))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_bce_by_hand() -> None:
    """Sigmoids 1/2 and 3/4; with a smoothing of 0.2 the targets are 0.9 and 0.1."""
    plain = BinaryCrossEntropy(0.0)(LOGITS, torch.tensor([0])).item()
    assert plain == pytest.approx((math.log(2) + math.log(4)) / 2)
    smooth = BinaryCrossEntropy(0.2)(LOGITS, torch.tensor([0])).item()
    assert smooth == pytest.approx((math.log(2) + 0.1 * math.log(4 / 3) + 0.9 * math.log(4)) / 2)


def test_bce_is_timms() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 5), torch.randint(0, 5, (6,))
    torch.testing.assert_close(BinaryCrossEntropy(0.1)(logits, labels), TimmBinaryCrossEntropy(0.1)(logits, labels))


@pytest.mark.parametrize("overrides", [("bce",), ("cross_entropy",), ("focal", "train.label_smoothing=0")])
def test_class_numbers_and_their_one_hot_shares_give_the_same(configure: Compose, overrides: tuple[str, ...]) -> None:
    loss_fn = build_loss(configure(f"train.loss={overrides[0]}", *overrides[1:]).train)
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 5), torch.randint(0, 5, (6,))
    torch.testing.assert_close(loss_fn(logits, labels), loss_fn(logits, F.one_hot(labels, 5).float()))


def test_focal_takes_its_gamma_from_the_paper_or_the_user(configure: Compose) -> None:
    for overrides, gamma in (((), 2.0), (("train.focal_gamma=1",), 1.0)):
        config = configure("train.loss=focal", "train.label_smoothing=0", *overrides).train
        expected = FocalLoss(gamma)(LOGITS, torch.tensor([0]))
        assert build_loss(config)(LOGITS, torch.tensor([0])) == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.loss=focal"], r"label_smoothing=0\.1 cannot go with train\.loss=focal.*set train\.label_smoothing=0"),
        (["train.focal_gamma=1"], r"focal_gamma=1\.0 has no effect with train\.loss=cross_entropy"),
        (["train.loss=focal", "train.label_smoothing=0", "train.focal_gamma=-1"], r"focal_gamma=-1\.0 is not allowed"),
    ],
)
def test_settings_that_contradict_the_loss_are_refused(configure: Compose, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(*overrides)


def test_class_weights_weigh_the_mean(configure: Compose) -> None:
    config = configure("train.class_weights=balanced", "train.label_smoothing=0").train
    weighted = build_loss(config, torch.tensor([1.0, 3.0]))
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    each = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]), reduction="none")
    expected = (each[0] * 1 + each[1] * 3) / 4
    torch.testing.assert_close(weighted(logits, torch.tensor([0, 1])), expected)


def test_class_weights_need_cross_entropy(configure: Compose) -> None:
    with pytest.raises(
        ConfigError, match=r"train\.class_weights=effective goes with train\.loss=cross_entropy, not with bce"
    ):
        configure("train.class_weights=effective", "train.loss=bce", "train.label_smoothing=0")
