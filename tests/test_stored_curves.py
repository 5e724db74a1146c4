"""The curves of three tiny runs, as they were stored: a change that is meant to change no number changes none.

``python tests/test_stored_curves.py`` says whether they are equal to the last bit, which holds on one machine alone;
``python tests/test_stored_curves.py --store`` stores them anew, after a change that is meant to change them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from compositions import composed
from hydra import initialize_config_dir
from tiny_runs import CPU, colours, fit

from ftexp.config import parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit

STORED = Path(__file__).parent / "assets" / "curves.json"
COMMON = (*CPU, "train.batch_size=8", "optimizer.head_lr=0.02", "optimizer.backbone_lr=0.01", "runtime.seed=3")
RUNS = {
    "head": ("stage=head", "stage.epochs=4"),
    "staged": ("stage=staged", "stage.epochs=2", "stage.gate=off", "bn_policy=train"),
    "full with mixup": ("stage=full", "stage.epochs=3", "augment.mixup=0.4", "train.ema=0.9", "bn_policy=train"),
}

Curve = list[list[float]]


def curves() -> Iterator[tuple[str, Curve]]:
    """Training loss, validation loss, gradient norm and head's change of every epoch of each run, in one thread."""
    register_schema()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # BatchNorm sums in another order with more, and training makes much of that
    try:
        yield from _curves()
    finally:
        torch.set_num_threads(threads)


def _curves() -> Iterator[tuple[str, Curve]]:
    for name, overrides in RUNS.items():
        splits = Splits(colours(44, seed=1), colours(21, seed=2), TestSplit(colours(10, seed=3)), tuple("bgrx"))
        with TemporaryDirectory() as folder, initialize_config_dir(str(conf_dir())):
            done = fit(parse(composed([*COMMON, *overrides])), splits, Path(folder))
        yield name, [[r.train_loss, r.val_loss, r.grad_norm, r.head_change] for r in done.history]


@pytest.mark.usefixtures("no_pictures")
def test_the_curves_are_those_that_were_stored() -> None:
    """Within what processors differ by."""
    stored = json.loads(STORED.read_text())
    now = dict(curves())
    assert now.keys() == stored.keys()
    for name, curve in now.items():
        assert len(curve) == len(stored[name]), name
        for epoch, expected in zip(curve, stored[name], strict=True):
            assert epoch == pytest.approx(expected, rel=1e-4, abs=1e-4), name


def main() -> None:
    """Compare to the last bit, or store."""
    now = dict(curves())
    if "--store" in sys.argv:
        STORED.write_text(json.dumps(now, indent=1) + "\n")
        return
    stored = json.loads(STORED.read_text())
    for name, curve in now.items():
        print(f"{name}: {'equal to the last bit' if curve == stored[name] else 'DIFFERENT'}")
    sys.exit(now != stored)


if __name__ == "__main__":
    main()
