"""The features of a data set, for benchmarks of what is told before training."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import ftexp
from ftexp.frozen_features import compute_features
from ftexp.probe.features import Features


def features_of(overrides: Sequence[str]) -> Features:
    """Of train and val, as the commands compute them; the overrides are theirs."""
    with tempfile.TemporaryDirectory() as folder:
        return compute_features(ftexp.compose(*overrides), Path(folder))[0]
