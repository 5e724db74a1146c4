"""Planted wrong labels: how many are among the first suspects, beside cleanlab?

    python -m benchmarks.labels NAME OVERRIDE... [--seeds 5]

The overrides are those of ftexp.labels and name the data, such as data=imagefolder data.root=pictures. Labels of train
and val are changed at random: symmetric (to any other class) and confusable (to the class that heads of the unchanged
data confuse it with most), 2 to 20 %. "found" is the share of the k changed labels among the first k suspects, which is
precision and recall at k; "found in 2k" is recall at twice as many. Beside ftexp's order stand three orders of cleanlab
given the same probabilities, and cleanlab's own: CleanLearning with five folds of logistic regression of the same
features, which knows no groups. Then precision and recall of what each calls a wrong label. Labels that were wrong
before count as right, so no method can reach 1 on photographs with wrong labels. Appends to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import cleanlab
import numpy as np
import numpy.typing as npt
import torch
from cleanlab.classification import CleanLearning
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.features import features_of
from benchmarks.results import append_rows, versions
from ftexp.probe.features import Features
from ftexp.probe.label_check import check_labels
from ftexp.probe.out_of_fold import out_of_fold

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
SHARES = (0.02, 0.05, 0.1, 0.2)
METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
OWN = "cleanlab, its own folds"


def planted(features: Features, share: float, confused: Integers | None, seed: int) -> tuple[Features, Integers]:
    """The same with some wrong labels, and the rows of those; to ``confused[class]``, or at random where it is None."""
    rng, labels = np.random.default_rng(seed), features.labels.numpy().copy()
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    if confused is None:
        labels[rows] = (labels[rows] + rng.integers(1, len(features.classes), len(rows))) % len(features.classes)
    else:
        labels[rows] = confused[labels[rows]]
    return replace(features, labels=torch.from_numpy(labels)), rows


def confused_classes(features: Features) -> Integers:
    """For each class the other one that its images are taken for most."""
    probabilities, labels = out_of_fold(features).probabilities, features.labels.numpy()
    means = np.stack([probabilities[labels == k].mean(axis=0) for k in range(len(features.classes))])
    np.fill_diagonal(means, -1)
    return means.argmax(axis=1)


def orders(features: Features, odds: float) -> dict[str, tuple[Integers, npt.NDArray[np.bool_]]]:
    """Method -> its order, most suspicious first, and what it calls wrong."""
    check, labels = check_labels(features, odds), features.labels.numpy()
    found = {"ftexp": (check.order, check.suspects)}
    probabilities = out_of_fold(features).probabilities
    wrong = find_label_issues(labels, probabilities)
    for method in METHODS:
        quality = get_label_quality_scores(labels, probabilities, method=method)
        found[f"cleanlab, {method}"] = (np.argsort(quality, kind="stable"), wrong)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    table = CleanLearning(classifier, seed=0).find_label_issues(features.values.numpy(), labels)
    quality = table["label_quality"].to_numpy()
    found[OWN] = (np.argsort(quality, kind="stable"), table["is_label_issue"].to_numpy())
    return found


def figures(order: Integers, called: npt.NDArray[np.bool_], rows: Integers) -> list[float]:
    wrong = np.zeros(len(order), dtype=bool)
    wrong[rows] = True
    k = len(rows)
    precision = wrong[called].mean() if called.any() else 1.0
    return [wrong[order[:k]].mean(), wrong[order[: 2 * k]].sum() / k, precision, called[wrong].mean()]


def shown(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="what the rows call the data")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--odds", type=float, default=4.0)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    features = features_of(given.overrides)
    kinds = {"symmetric": None, "confusable": confused_classes(features)}
    if len(features.classes) == 2:
        del kinds["confusable"]  # the same
    for kind, confused in kinds.items():
        for share in SHARES:
            results: dict[str, list[list[float]]] = {}
            for seed in range(given.seeds):
                noisy, rows = planted(features, share, confused, seed)
                for method, (order, called) in orders(noisy, given.odds).items():
                    results.setdefault(method, []).append(figures(order, called, rows))
            append_rows(
                "Planted wrong labels, beside cleanlab",
                [
                    {
                        "date": date.today(),
                        "data": f"{given.name}, {len(features.labels)} images",
                        "noise": f"{kind}, {share:.0%}",
                        "k": len(rows),
                        "method": method,
                        **dict(
                            zip(
                                ("found in k", "found in 2k", "precision of called", "recall of called"),
                                map(shown, zip(*runs, strict=True)),
                                strict=True,
                            )
                        ),
                        "n": len(runs),
                        "versions": f"cleanlab {cleanlab.__version__}, {versions()}",
                    }
                    for method, runs in results.items()
                ],
            )


if __name__ == "__main__":
    main()
