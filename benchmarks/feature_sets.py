"""Two networks without a download, their frozen features alone and side by side.

    python -m benchmarks.feature_sets photos=FOLDER more=FOLDER [--per-class 50] [--cuts 3]

One pass of each network over some images of a set, then random cuts into 60 % to train on, 20 % to choose the strength
by and 20 % to score, the same for all. The head is solved on the features before the last layer, and on the outputs of
all blocks; ``head.depth=auto`` chooses between them by its folds of the training part. Adds a row a set to results.md.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.depth import Pass, accuracy, one_pass, spread
from benchmarks.results import append_rows, machine, versions
from ftexp.data.samples import Sample
from ftexp.models.depth_head import StandardisedLinear
from ftexp.probe.depth import probe_depth
from ftexp.probe.features import Features

SECTION = "A ViT without a download"
MODELS = ("efficientnet_lite0", "vit_s_14_saliency")


@dataclass(frozen=True, slots=True)
class Cut:
    """The features [N, D] of the three parts of a cut, their labels, and the widths of the parts of D."""

    values: list[Tensor]
    labels: list[Tensor]
    widths: list[int]
    num_classes: int

    def score(self) -> float:
        return accuracy(self.values, self.labels, self.num_classes, self.widths)

    def standardised(self) -> Cut:
        """As a head on all depths sees them."""
        layer = StandardisedLinear(self.widths, self.num_classes)
        unit = layer.unit_length(self.values[0]).double()
        layer.set_statistics(unit.mean(dim=0).float(), unit.std(dim=0, correction=0).float())
        return Cut([layer.standardise(part) for part in self.values], self.labels, [], self.num_classes)


def cut(found: Pass, seed: int, last: bool = False) -> Cut:
    num, widths = len(found.labels), [width for _, width in found.blocks]
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    parts = torch.tensor_split(order, (round(0.6 * num), round(0.8 * num)))
    values = [found.values[rows, -widths[-1] :] if last else found.values[rows] for rows in parts]
    labels = [found.labels[rows] for rows in parts]
    return Cut(values, labels, widths[-1:] if last else widths, len(found.classes))


def takes_all(found: Pass, every: Cut, seed: int) -> bool:
    """Whether ``head.depth=auto`` would take the outputs of all blocks."""
    samples = tuple(Sample(str(row), found.classes[label]) for row, label in enumerate(every.labels[0].tolist()))
    values = every.standardised().values[0]
    features = Features(values, every.labels[0], torch.arange(len(samples)), samples, found.classes)
    return probe_depth(features, found.blocks, seed).prefers_all


def together(cuts: Sequence[Cut]) -> Cut:
    values = [torch.cat(parts, dim=1) for parts in zip(*(cut.values for cut in cuts), strict=True)]
    return Cut(values, cuts[0].labels, [width for cut in cuts for width in cut.widths], cuts[0].num_classes)


def drawn(root: Path, per_class: int, table: Path) -> Path:
    """A table of some images of each class, as folders name them."""
    images = sorted(path for path in root.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
    seen: dict[str, int] = defaultdict(int)
    rows = [("path", "label", "split")]
    for path in (images[number] for number in order):
        label = path.parent.name
        seen[label] += 1
        if not per_class or seen[label] <= per_class:
            rows.append((str(path.resolve()), label, "val" if seen[label] % 5 == 0 else "train"))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return table


def passes(root: Path, per_class: int) -> tuple[dict[str, Pass], list[float]]:
    found, seconds = {}, []
    with tempfile.TemporaryDirectory() as folder:
        table = drawn(root, per_class, Path(folder) / "images.csv")
        data = ("data=manifest", f"data.file={table}", f"data.root={root}", "data.split_column=split")
        for model in MODELS:
            started = time.perf_counter()
            found[model] = one_pass([f"model={model}", *data, f"runtime.cache_folder={folder}/cache"])
            seconds.append(time.perf_counter() - started)
    first, second = found.values()
    assert torch.equal(first.labels, second.labels)
    return found, seconds


def compare(name: str, root: Path, per_class: int, num_cuts: int) -> dict[str, object]:
    found, seconds = passes(root, per_class)
    scores: dict[str, list[float]] = defaultdict(list)
    took: dict[str, int] = dict.fromkeys(MODELS, 0)
    for seed in range(num_cuts):
        last = {model: cut(found[model], seed, last=True) for model in MODELS}
        every = {model: cut(found[model], seed) for model in MODELS}
        for model in MODELS:
            deep = takes_all(found[model], every[model], seed)
            took[model] += deep
            scores[f"{model}, last"].append(last[model].score())
            scores[f"{model}, all"].append(every[model].standardised().score())
            scores[f"{model}, auto"].append(scores[f"{model}, {'all' if deep else 'last'}"][-1])
        scores["both, last"].append(together(list(last.values())).standardised().score())
        scores["both, all"].append(together(list(every.values())).standardised().score())
    return {
        "date": date.today().isoformat(),
        "set": name,
        "images": len(found[MODELS[0]].labels),
        "cuts": num_cuts,
        **{key: spread(values) for key, values in scores.items()},
        "auto took all": ", ".join(f"{count} of {num_cuts}" for count in took.values()),
        "seconds of reading and the pass": ", ".join(f"{value:.0f}" for value in seconds),
        "machine": machine(),
        "versions": versions(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--per-class", type=int, default=0, help="images of each class; 0: all")
    parser.add_argument("--cuts", type=int, default=3)
    given = parser.parse_args()
    for one in given.sets:
        name, _, root = one.partition("=")
        append_rows(SECTION, [compare(name, Path(root), given.per_class, given.cuts)])


if __name__ == "__main__":
    main()
