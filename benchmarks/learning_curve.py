"""Does the band of ftexp.learning_curve hold what images show that were held back?

    python -m benchmarks.learning_curve NAME OVERRIDE... [--trials 10]

The overrides are those of ftexp.learning_curve and name the data, such as data=imagefolder data.root=pictures. In each
trial, whole groups are cut at random into a third to score on and two thirds; the curve is drawn on half of the two
thirds and tells what the other half would gain. Then heads of that half and of both are scored on the third that nobody
has seen. Two bands are printed, and counted. "Measured once": of what one set of as many images as there are would
show; the third is such a set. "Long run": of the gain itself, which the mean of all trials comes near. Adds a row to
benchmarks/results.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from benchmarks.features import features_of
from benchmarks.results import append_rows, machine, versions
from ftexp.metric_names import METRICS
from ftexp.probe.cross_validation import draw_folds, score_head
from ftexp.probe.curve import errors_of, learning_curve, nested_subsets
from ftexp.probe.features import Features
from ftexp.probe.power_law import PowerLaw, gain_of

FOLDS, REPEATS = 5, 3  # the defaults of probe.folds and probe.repeats


@dataclass(frozen=True, slots=True)
class Trial:
    """What was told and what was measured, both as gains of a score."""

    told: float
    low: float
    high: float
    measured_low: float
    measured_high: float
    measured: float
    num_images: int


def one_trial(features: Features, metric: str, seed: int) -> Trial:
    unseen_rows = draw_folds(features, 3, 2000 + seed)[0]
    unseen = features.take(unseen_rows)
    rest = features.take(np.setdiff1d(np.arange(len(features.labels)), unseen_rows))
    half, whole = (rest.take(rows) for rows in nested_subsets(rest, (0.5, 1.0), seed))
    now, more = len(half.labels), min(len(whole.labels) - len(half.labels), len(half.labels))
    errors = errors_of(learning_curve(half, FOLDS, REPEATS, seed, metric), metric, seed)[0]
    gain = gain_of(PowerLaw.fit(errors), errors, now, more)
    before, after = (score_head(seen, unseen).metric(metric) for seen in (half, whole))
    bands = gain.low, gain.high, gain.measured_low, gain.measured_high
    return Trial(gain.gain, *bands, METRICS[metric].gain(before, after), now)


def row(name: str, metric: str, trials: Sequence[Trial]) -> dict[str, object]:
    mean = float(np.mean([trial.measured for trial in trials]))
    covered = {
        "gain in band, measured once": sum(one.measured_low <= one.measured <= one.measured_high for one in trials),
        "gain in band, long run": sum(one.low <= one.measured <= one.high for one in trials),
        "mean gain in band, long run": sum(one.low <= mean <= one.high for one in trials),
    }
    return {
        "date": date.today(),
        "data": name,
        "metric": metric,
        "images, now": round(np.mean([trial.num_images for trial in trials])),
        "trials": len(trials),
        "gain told": points(trial.told for trial in trials),
        "gain measured": points(trial.measured for trial in trials),
        **{key: f"{count} of {len(trials)}" for key, count in covered.items()},
        "width, measured once": f"{100 * np.mean([one.measured_high - one.measured_low for one in trials]):.2f}",
        "width, long run": f"{100 * np.mean([one.high - one.low for one in trials]):.2f}",
        "machine": machine(),
        "versions": versions(),
    }


def points(values: Sequence[float]) -> str:
    """Mean and standard error, in points."""
    given = 100 * np.array(list(values))
    return f"{given.mean():.2f} ± {given.std(ddof=1) / len(given) ** 0.5:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="what the rows call the data")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--metric", default="accuracy")
    given = parser.parse_args()
    features = features_of(given.overrides)
    trials = []
    for seed in range(given.trials):
        trials.append(one_trial(features, given.metric, seed))
        print(trials[-1], flush=True)
    append_rows("Learning curve: both bands and what held-back images show", [row(given.name, given.metric, trials)])


if __name__ == "__main__":
    main()
