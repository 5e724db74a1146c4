"""Do the images that ftexp.pick_images picks help more than others, once they are labelled?

    python -m benchmarks.pick_images NAME OVERRIDE... [--seeds 10] [--start 10] [--picks 50]

The overrides are those of ftexp.pick_images and name the data, such as data=imagefolder data.root=pictures. In each
trial a third of the groups of train and val is held back to be scored on. Of the others, --start images of each class
are labelled and the rest is not. A method picks --picks of the rest, their labels are revealed, and a head of all
labelled images is scored on the held-back ones. "Gain" is the accuracy less that of random picks, which is the mean of
five draws; "better" counts the trials with more accuracy than that. Methods, each from its paper: the smallest margin;
the highest entropy; k-center on the labelled ones (Sener and Savarese, 2018); of the three times as many with the
smallest margin those of k-center; the most typical image of each cluster without a label (TypiClust, Hacohen et al.,
2022); k-means++ on gradients of the last layer (BADGE, Ash et al., 2020); the image next to each center of a k-means
that is weighted by the margin (Zhdanov, 2019). Appends to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans

from benchmarks.features import features_of
from benchmarks.results import append_rows, versions
from ftexp.probe.features import Features
from ftexp.probe.out_of_fold import fit_head
from ftexp.probe.picking import pick_images

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
NUM_DRAWS = 5
TYPICAL_NEIGHBOURS = 20


@dataclass(frozen=True, slots=True)
class Trial:
    """What methods choose by.

    Attributes:
        labelled, rest: the samples.
        held_back: those to score on.
        probabilities: float32 [M, K], of the rest by a head of the labelled ones.
        known, new: directions of labelled ones and of the rest, standardised, of length 1.
        rng: for methods that draw.
    """

    labelled: Features
    rest: Features
    held_back: Features
    probabilities: Floats
    known: Floats
    new: Floats
    rng: np.random.Generator

    @property
    def margin(self) -> Floats:
        best = np.sort(self.probabilities, axis=1)
        margin: Floats = best[:, -1] - best[:, -2]
        return margin


def drawn(features: Features, per_class: int, seed: int) -> Trial:
    rng = np.random.default_rng(seed)
    held = np.isin(features.groups.numpy(), rng.permutation(features.num_groups)[: features.num_groups // 3])
    pool, labels = rng.permutation(np.flatnonzero(~held)), features.labels.numpy()
    first = np.concatenate([pool[labels[pool] == k][:per_class] for k in range(len(features.classes))])
    rest = np.setdiff1d(pool, first)
    labelled = features.take(first)
    probabilities = torch.softmax(fit_head(labelled).logits(features.values[rest]), dim=1).float().numpy()
    both = features.values[np.concatenate([first, rest])]
    directions = torch.nn.functional.normalize((both - both.mean(0)) / both.std(0).clamp(min=1e-6), dim=1).numpy()
    known, new = directions[: len(first)], directions[len(first) :]
    return Trial(labelled, features.take(rest), features.take(np.flatnonzero(held)), probabilities, known, new, rng)


def ours(trial: Trial, count: int) -> Integers:
    return np.array([pick.row for pick in pick_images(trial.labelled, trial.rest.values, count)])


def smallest_margin(trial: Trial, count: int) -> Integers:
    return np.argsort(trial.margin, kind="stable")[:count]


def highest_entropy(trial: Trial, count: int) -> Integers:
    entropy = -(trial.probabilities * np.log(trial.probabilities + 1e-12)).sum(axis=1)
    return np.argsort(-entropy, kind="stable")[:count]


def k_center(trial: Trial, count: int, among: Integers | None = None) -> Integers:
    rows = np.arange(len(trial.new)) if among is None else among
    points, picked = trial.new[rows], list[int]()
    distance = (1 - points @ trial.known.T).min(axis=1)
    while len(picked) < count:
        picked.append(int(distance.argmax()))
        distance = np.minimum(distance, 1 - points @ points[picked[-1]])
        distance[picked] = -1
    return rows[picked]


def margin_and_k_center(trial: Trial, count: int) -> Integers:
    return k_center(trial, count, smallest_margin(trial, 3 * count))


def typiclust(trial: Trial, count: int) -> Integers:
    points = np.concatenate([trial.new, trial.known])
    clusters = KMeans(count + len(trial.known), n_init=1, random_state=0).fit_predict(points)
    own, taken = clusters[: len(trial.new)], set(clusters[len(trial.new) :].tolist())
    picked: list[int] = []
    for cluster in np.argsort(-np.bincount(clusters), kind="stable"):
        rows = np.flatnonzero(own == cluster)
        if cluster not in taken and len(rows) and len(picked) < count:
            near = np.sort(trial.new[rows] @ trial.new[rows].T, axis=1)[:, -TYPICAL_NEIGHBOURS - 1 :]
            picked.append(int(rows[near.mean(axis=1).argmax()]))
    left = [int(row) for row in smallest_margin(trial, len(own)) if row not in picked]
    return np.array([*picked, *left][:count])


def badge(trial: Trial, count: int) -> Integers:
    gradient = trial.probabilities.copy()
    gradient[np.arange(len(gradient)), gradient.argmax(axis=1)] -= 1
    norms = (gradient**2).sum(axis=1)  # the whole gradient is this times a direction of length 1
    picked = [int(norms.argmax())]
    distance = np.full(len(norms), np.inf)
    while True:
        last = picked[-1]
        away = norms + norms[last] - 2 * (gradient @ gradient[last]) * (trial.new @ trial.new[last])
        distance = np.minimum(distance, np.maximum(away, 0))
        distance[picked] = 0
        if len(picked) == count:
            return np.array(picked)
        picked.append(int(trial.rng.choice(len(norms), p=distance / distance.sum())))


def weighted_k_means(trial: Trial, count: int) -> Integers:
    means = KMeans(count, n_init=1, random_state=0).fit(trial.new, sample_weight=1 - trial.margin)
    picked: list[int] = []
    for distances in means.transform(trial.new).T:
        picked.append(next(int(row) for row in np.argsort(distances, kind="stable") if row not in picked))
    return np.array(picked)


METHODS: dict[str, Callable[[Trial, int], Integers]] = {
    "ftexp": ours,
    "margin": smallest_margin,
    "entropy": highest_entropy,
    "k-center": k_center,
    "margin, k-center": margin_and_k_center,
    "TypiClust": typiclust,
    "BADGE": badge,
    "weighted k-means": weighted_k_means,
}


def accuracy(trial: Trial, rows: Integers) -> float:
    """Of a head of the labelled images and of these others."""
    parts, picked = trial.labelled, trial.rest.take(rows)
    together = Features(
        torch.cat([parts.values, picked.values]),
        torch.cat([parts.labels, picked.labels]),
        torch.cat([parts.groups, parts.num_groups + picked.groups]),
        (*parts.samples, *picked.samples),
        parts.classes,
    )
    guesses = fit_head(together).logits(trial.held_back.values).argmax(dim=1)
    return float((guesses == trial.held_back.labels).float().mean())


def shown(values: Floats) -> str:
    return f"{values.mean():.4f} ± {values.std(ddof=1) / len(values) ** 0.5:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="what the rows call the data")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=100, help="the method was chosen on lower ones")
    parser.add_argument("--start", type=int, default=10)
    parser.add_argument("--picks", type=int, default=50)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="Number of distinct clusters")
    features = features_of(given.overrides)
    found: dict[str, list[float]] = {name: [] for name in ("none", "random", *METHODS)}
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        trial = drawn(features, given.start, seed)
        size = len(trial.rest.labels)
        found["none"].append(accuracy(trial, np.zeros(0, dtype=np.int64)))
        draws = [accuracy(trial, trial.rng.choice(size, given.picks, replace=False)) for _ in range(NUM_DRAWS)]
        found["random"].append(float(np.mean(draws)))
        for name, method in METHODS.items():
            found[name].append(accuracy(trial, method(trial, given.picks)))
    results = {name: np.array(values, dtype=np.float32) for name, values in found.items()}
    append_rows(
        "Images to label next",
        [
            {
                "date": date.today(),
                "data": f"{given.name}, {len(features.labels)} images",
                "labelled": given.start * len(features.classes),
                "picks": given.picks,
                "method": name,
                "accuracy": shown(values),
                "gain over random": "" if name == "random" else shown(values - results["random"]),
                "better": "" if name == "random" else f"{(values > results['random']).sum()} of {given.seeds}",
                "versions": versions(),
            }
            for name, values in results.items()
        ],
    )


if __name__ == "__main__":
    main()
