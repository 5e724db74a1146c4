"""The files of a comparison of networks, and the table that tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from ftexp.errors import shorten
from ftexp.files.json_files import write_json
from ftexp.metric_names import METRICS, Metric
from ftexp.probe.cross_validation import Floats, group_draws, interval_of, pooled
from ftexp.probed_models import ProbedModel, ProbedModels
from ftexp.report.tables import format_table, write_rows

RANKED = "ridge heads on the features of frozen networks (probes), not fine-tuned networks"


def write_comparison(folder: Path, models: ProbedModels, metric: str, seed: int) -> list[str]:
    """Write ``compare_models.csv`` and ``compare_models.json``.

    Args:
        folder: where the files are written.
        models: what was found.
        metric: the metric that ranks.
        seed: of the intervals.

    Returns:
        The lines of the table, the best network first, and what it means.
    """
    of = METRICS[metric]
    values, draws = {}, {}
    for model in models.found:
        scores, rows = pooled(model.folds), np.concatenate([one.rows for one in model.folds])
        values[model.given] = scores.metric(metric)
        draws[model.given] = group_draws(scores, models.groups[rows], [metric], seed)[metric]
    ranked = sorted(models.found, key=lambda model: of.gain(0.0, values[model.given]), reverse=True)
    pairs = [_pair(one.given, other.given, values, draws) for one, other in combinations(ranked, 2)]
    to_best = {str(pair["other"]): pair for pair in pairs if pair["model"] == ranked[0].given}
    table = [_row(model, values, draws, to_best, metric) for model in ranked]
    failed = [{"model": name, "reason": reason} for name, reason in models.failed.items()]
    write_rows(folder / "compare_models.csv", [*table, *failed])
    facts = {"ranked": RANKED, "metric": metric, "images": len(models.groups), "models": [*table, *failed]}
    write_json(folder / "compare_models.json", {**facts, "pairs": pairs})
    return [*_lines(table, models.failed, of), f"compare {_verdict(table)} {folder / 'compare_models.csv'}"]


def _pair(one: str, other: str, values: Mapping[str, float], draws: Mapping[str, Floats]) -> dict[str, object]:
    """The difference of two networks on the same resamples of the same images."""
    low, high = interval_of(draws[other] - draws[one])
    return {"model": one, "other": other, "difference": values[other] - values[one], "low": low, "high": high}


def _row(
    model: ProbedModel,
    values: Mapping[str, float],
    draws: Mapping[str, Floats],
    to_best: Mapping[str, Mapping[str, object]],
    metric: str,
) -> dict[str, object]:
    low, high = interval_of(draws[model.given])
    behind = to_best.get(model.given, {})
    return {
        "model": model.given,
        metric: values[model.given],
        "low": low,
        "high": high,
        "difference": behind.get("difference"),
        "difference_low": behind.get("low"),
        "difference_high": behind.get("high"),
        "seconds_per_image": model.cost.seconds,
        "mib_per_image": model.cost.mib,
        "parameters": model.cost.parameters,
        "features": model.num_features,
        "image_size": model.image_size,
    }


def _lines(table: Sequence[Mapping[str, object]], failed: Mapping[str, str], metric: Metric) -> list[str]:
    shown = [
        {
            "network": shorten(str(row["model"]), 60),
            metric.label: f"{row[metric.name]:.4f} ({row['low']:.4f} to {row['high']:.4f})",
            "from the best": _points(row, metric),
            "ms/image": f"{1000 * _number(row['seconds_per_image']):.1f}",
            "MiB/image": f"{row['mib_per_image']:.1f}",
            "parameters": f"{_number(row['parameters']) / 1e6:.1f} M",
        }
        for row in table
    ]
    lines = format_table(shown).splitlines()
    return [*lines, *(f"{shorten(name, 60)} is left out: {reason}" for name, reason in failed.items())]


def _points(row: Mapping[str, object], metric: Metric) -> str:
    if row["difference"] is None:
        return ""
    scale, digits = (100, 1) if metric.maximize else (1, 3)
    difference, low, high = (scale * _number(row[key]) for key in ("difference", "difference_low", "difference_high"))
    unit = " points" if metric.maximize else ""
    return f"{difference:+.{digits}f}{unit} ({low:+.{digits}f} to {high:+.{digits}f})"


def _verdict(table: Sequence[Mapping[str, object]]) -> str:
    alike = [row for row in table[1:] if _number(row["difference_low"]) <= 0 <= _number(row["difference_high"])]
    names = ", ".join(str(row["model"]) for row in (table[0], *alike))
    told = f"These images do not tell {names} apart. " if alike else ""
    return (
        f"{told}Brackets are 95 % intervals over groups of images, of differences in pairs. This ranks heads on frozen "
        "networks (probes); fine-tuned networks may rank differently."
    )


def _number(value: object) -> float:
    assert isinstance(value, (int, float))
    return float(value)
