"""Whether an evaluation gives the scores that a run logged, and if not, what computed them otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftexp.inference.evaluation import Evaluation
from ftexp.machine.runtime import Runtime
from ftexp.run_identity import RunIdentity, installed_versions
from ftexp.run_result import RunResult

# What decodes, prepares and computes; of the other packages no score depends.
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The scores that a run logged on its validation split beside those of now.

    Attributes:
        logged, now: ``loss`` and every metric that the run recorded.
        differences: what the run computed with otherwise, each as "what: then -> now".
    """

    logged: dict[str, float]
    now: dict[str, float]
    differences: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether all of them are equal to the last bit."""
        return self.logged == self.now


def reproduction(
    evaluation: Evaluation, folder: Path, identity: RunIdentity, engine: Mapping[str, Any]
) -> Reproduction:
    """Compare an evaluation on a run's validation split with what the run logged.

    Args:
        folder: of the run.
        engine: what computed the evaluation, see ``engine_facts``.

    Raises:
        CheckpointError: when the run has not finished.
    """
    logged = dict(RunResult.read(folder).best.metrics)
    now = {name: evaluation.scores.loss if name == "loss" else evaluation.scores.metric(name) for name in logged}
    then = {**(identity.engine or {}), "batch_size": identity.batch_size, **_versions(identity.versions)}
    changed = [
        f"{name}: {then[name]} -> {engine[name]}" for name in then if name in engine and then[name] != engine[name]
    ]
    if identity.engine is None:
        changed.insert(0, "its version of ftexp did not note what it computed with")
    return Reproduction(logged, now, tuple(changed))


def engine_facts(runtime: Runtime, batch_size: int) -> dict[str, Any]:
    """What computes an evaluation, in the words of ``run.json``; the forward pass is never compiled."""
    return {
        **runtime.engine(),
        "compile": False,
        "frozen_pass": "eager",
        "batch_size": batch_size,
        **_versions(installed_versions()),
    }


def _versions(versions: Mapping[str, str]) -> dict[str, str]:
    return {name: versions[name] for name in PACKAGES if name in versions}
