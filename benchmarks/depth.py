"""Does a head on the outputs of all blocks beat one on the features before the last layer, and does ``auto`` know?

    python -m benchmarks.depth hymenoptera data=imagefolder data.root=FOLDER

One pass of the frozen network over train and val; then, for several random splits of these features, the head is solved
on the last features (``head.depth=last``) and on the outputs of all blocks (``all``), and ``auto`` chooses between them
by its folds of the training part. All are scored on images that none of them saw. Adds a row to results.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

import ftexp
from benchmarks.results import append_rows, machine, versions
from ftexp.data.samples import Sample
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.models.depth_head import StandardisedLinear
from ftexp.preparation.prepare import prepare
from ftexp.probe.depth import probe_depth
from ftexp.probe.features import Features
from ftexp.probe.logistic import LogisticProblem
from ftexp.probe.strength import score_logits, soft_targets, solve_on_validation
from ftexp.training.inputs.features import gathered

SMOOTHING = 0.1


@dataclass(frozen=True, slots=True)
class Pass:
    """The averaged outputs [N, D] of all blocks, name and width of each, and labels [N] of images of these classes."""

    values: Tensor
    blocks: list[tuple[str, int]]
    labels: Tensor
    classes: tuple[str, ...]


def one_pass(overrides: Sequence[str]) -> Pass:
    given = ("stage=head", "head.depth=all", "tracking=none", "audit.on_leak=off", "runtime.device=cpu", *overrides)
    with TemporaryDirectory() as folder:
        prepared = prepare(ftexp.compose(*given), Path(folder), ONE_PROCESS, score_test=False)
    known, taps = prepared.settled.depth.features, prepared.settled.network.taps
    assert known is not None
    both = [gathered(lambda features: features, part, prepared.runtime) for part in (known.train, known.val)]
    values, labels = (torch.cat([part[i] for part in both if part is not None]) for i in (0, 1))
    own = values.shape[1] - sum(tap.width for tap in taps)
    return Pass(
        values, [*((tap.block, tap.width) for tap in taps), ("last", own)], labels, prepared.settled.splits.classes
    )


def accuracy(values: Sequence[Tensor], labels: Sequence[Tensor], num_classes: int, parts: Sequence[int]) -> float:
    """Of the head solved on the first part and chosen on the second, on the third."""
    problem = LogisticProblem.of_targets(values[0], soft_targets(labels[0], num_classes, SMOOTHING), parts)
    chosen = solve_on_validation(problem, values[1], labels[1], "accuracy")
    return score_logits(chosen.solution.logits(values[2]), labels[2]).accuracy


def compare(name: str, overrides: Sequence[str], splits: range) -> dict[str, object]:
    found = one_pass(overrides)
    num, num_classes, widths = len(found.labels), len(found.classes), [width for _, width in found.blocks]
    last, every, auto, chosen, seconds = [], [], [], 0, []
    for seed in splits:
        order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
        parts = torch.tensor_split(order, (round(0.6 * num), round(0.8 * num)))
        values, labels = [found.values[rows] for rows in parts], [found.labels[rows] for rows in parts]
        layer = StandardisedLinear(widths, num_classes)
        unit = layer.unit_length(values[0]).double()
        layer.set_statistics(unit.mean(dim=0).float(), unit.std(dim=0, correction=0).float())
        ready = [layer.standardise(part) for part in values]
        started = time.perf_counter()
        samples = tuple(Sample(str(row), found.classes[found.labels[row]]) for row in parts[0].tolist())
        features = Features(ready[0], labels[0], torch.arange(len(samples)), samples, found.classes)
        probe = probe_depth(features, found.blocks, seed)
        seconds.append(time.perf_counter() - started)
        own = [part[:, -widths[-1] :] for part in values]
        last.append(accuracy(own, labels, num_classes, [widths[-1]]))
        every.append(accuracy(ready, labels, num_classes, []))
        auto.append(every[-1] if probe.prefers_all else last[-1])
        chosen += probe.prefers_all
    return {
        "date": date.today().isoformat(),
        "set": name,
        "images": num,
        "features": sum(widths),
        "splits": f"{splits.start} to {splits.stop - 1}",
        "accuracy, last": spread(last),
        "accuracy, all": spread(every),
        "accuracy, auto": spread(auto),
        "auto took all": f"{chosen} of {len(splits)}",
        "gain of auto, points": spread([100 * (one - other) for one, other in zip(auto, last, strict=True)], 2),
        "seconds of the probe": f"{statistics.median(seconds):.1f}",
        "machine": machine(),
        "versions": versions(),
    }


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean and standard error."""
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values) / len(values) ** 0.5:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="number of the first split, the seed of its draw")
    given = parser.parse_args()
    append_rows(
        "The depth of the head", [compare(given.name, given.overrides, range(given.first, given.first + given.splits))]
    )


if __name__ == "__main__":
    main()
