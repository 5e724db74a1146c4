"""The files of a learning curve, and the lines that tell what more images would gain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ftexp.errors import ConfigError, shorten
from ftexp.files.json_files import write_json
from ftexp.metric_names import METRICS, Metric
from ftexp.probe.curve import Errors, LearningCurve, errors_of
from ftexp.probe.power_law import Gain, PowerLaw, gain_of, quantiles, still_rises
from ftexp.report.learning_curve_plot import Line, plot_learning_curve
from ftexp.report.tables import write_rows

# Without probe.more: these shares of the images that there are.
STEPS = (0.25, 0.5, 1.0)
MAX_CLASSES = 10


@dataclass(frozen=True, slots=True)
class Forecast:
    """The measured curve of one score, and how a power law goes on with it.

    Attributes:
        name: the class whose recall it is; None: the metric.
        metric: the score.
        errors: as measured.
        law: through them; None for the recall of a class that does not rise any more.
        gains: of each step, where there is a law.
    """

    name: str | None
    metric: Metric
    errors: Errors
    law: PowerLaw | None
    gains: tuple[Gain, ...]


def steps_ahead(num_images: int, more: int | None) -> list[int]:
    """The numbers of further images to forecast for: round ones up to as many as there are, or the given one.

    Args:
        num_images: how many there are.
        more: ``probe.more``.

    Raises:
        ConfigError: if it is more than there are.
    """
    if more is None:
        rounded = [int(float(f"{share * num_images:.2g}")) for share in STEPS]
        return sorted({min(step, num_images) for step in rounded})
    if more > num_images:
        raise ConfigError(
            f"probe.more={more} is too far ahead: train and val have {num_images} images, and the curve is not "
            f"extrapolated beyond twice as many. Give {num_images} or fewer."
        )
    return [more]


def write_learning_curve(
    folder: Path, curve: LearningCurve, classes: Sequence[str], metric: str, steps: Sequence[int], seed: int
) -> list[str]:
    """Write ``learning_curve.json``, ``learning_curve.csv`` and ``learning_curve.png``.

    Args:
        folder: where the files are written.
        curve: the scores of all sizes.
        classes: the names of the classes.
        metric: the metric of the curve.
        steps: the numbers of further images to forecast for.
        seed: of the resampling.

    Returns:
        The lines that tell the result.
    """
    now, of_metric = curve.num_images, METRICS[metric]
    errors, of_classes = errors_of(curve, metric, seed)
    law = PowerLaw.fit(errors)
    whole = Forecast(None, of_metric, errors, law, tuple(gain_of(law, errors, now, step) for step in steps))
    recalls = [_recall(name, one, now, steps) for name, one in zip(classes, of_classes, strict=True)]
    write_json(folder / "learning_curve.json", _content(curve, whole, recalls))
    write_rows(folder / "learning_curve.csv", [row for forecast in (whole, *recalls) for row in _rows(forecast, now)])
    rising = sorted((one for one in recalls if one.gains), key=lambda one: -one.gains[-1].gain)
    plot_learning_curve([_line(one) for one in (whole, *rising)], now, folder / "learning_curve.png")
    return list(_lines(curve, whole, rising, folder / "learning_curve.json"))


def _recall(name: str, errors: Errors, now: int, steps: Sequence[int]) -> Forecast:
    law = PowerLaw.fit(errors) if still_rises(errors) else None
    gains = () if law is None else tuple(gain_of(law, errors, now, step) for step in steps)
    return Forecast(name, METRICS["accuracy"], errors, law, gains)


def _line(forecast: Forecast) -> Line:
    label = forecast.metric.label if forecast.name is None else forecast.name
    return Line(label, forecast.errors, forecast.law, forecast.metric.high if forecast.metric.maximize else None)


def _content(curve: LearningCurve, whole: Forecast, recalls: Sequence[Forecast]) -> dict[str, object]:
    assert whole.law is not None
    low, middle, high = quantiles(whole.law.error(curve.num_images))
    return {
        "scored": "a ridge head on the features of the frozen network, not the stage",
        "metric": whole.metric.name,
        "images": curve.num_images,
        "heads_per_size": int(curve.heads.max()) + 1,
        "now": _ordered(whole.metric, low, middle, high),
        "more": [_step(gain, curve.num_images) for gain in whole.gains],
        "law": {
            "form": "error(n) = floor + rest * (n / largest) ** -exponent",
            "largest": whole.law.largest,
            **{name: quantiles(getattr(whole.law, name))[1] for name in ("floor", "rest", "exponent")},
        },
        "classes": [
            {
                "class": one.name,
                "recall": 1 - float(one.errors.values[-1]),
                "still_rises": bool(one.gains),
                "more": [_step(gain, curve.num_images) for gain in one.gains],
            }
            for one in recalls
        ],
    }


def _ordered(metric: Metric, low: float, middle: float, high: float) -> dict[str, float]:
    """Errors as scores, with their interval."""
    values = [metric.high - error if metric.maximize else error for error in (low, middle, high)]
    return {"value": values[1], "low": min(values), "high": max(values)}


def _step(gain: Gain, now: int) -> dict[str, object]:
    return {"images": now + gain.more, **asdict(gain)}


def _rows(forecast: Forecast, now: int) -> Iterator[dict[str, object]]:
    """A row for every size: those that were measured, and twice what there is as the law has it."""
    score = forecast.metric.name if forecast.name is None else f"recall of {forecast.name}"
    lows, highs = np.nanquantile(forecast.errors.draws, [0.025, 0.975], axis=0)
    for size, low, middle, high in zip(forecast.errors.sizes, lows, forecast.errors.values, highs, strict=True):
        values = _ordered(forecast.metric, low, middle, high)
        yield {"score": score, "images": float(size), "from": "measured", **values}
    if forecast.law is not None:
        for size in (now, *(now + gain.more for gain in forecast.gains)):
            values = _ordered(forecast.metric, *quantiles(forecast.law.error(size)))
            yield {"score": score, "images": size, "from": "power law", **values}


def _lines(curve: LearningCurve, whole: Forecast, rising: Sequence[Forecast], file: Path) -> Iterator[str]:
    best = _ordered(whole.metric, *(float(whole.errors.values[-1]),) * 3)["value"]
    yield (
        f"curve   {whole.metric.label} {best:.4f} with {whole.errors.sizes[-1]:.0f} images, "
        f"{_ordered(whole.metric, *(float(whole.errors.values[0]),) * 3)['value']:.4f} with "
        f"{whole.errors.sizes[0]:.0f}; train and val have {curve.num_images}"
    )
    for gain in whole.gains:
        yield f"curve   {gain.more:,} more images (of the same kind): {_shown(whole.metric, gain)}"
    for one in rising[:MAX_CLASSES]:
        gain = one.gains[-1]
        yield (
            f"curve   recall of {shorten(one.name or '', 40)}, now {1 - one.errors.values[-1]:.3f}, still rises: "
            f"{gain.more:,} more images (of all classes): {_shown(one.metric, gain)}"
        )
    if len(rising) > MAX_CLASSES:
        yield f"curve   {len(rising) - MAX_CLASSES} more classes rise; all are in the file."
    yield (
        "curve   Brackets are 95 % bands: of the gain in the long run, and of what one measurement on "
        f"{curve.num_images:,} other images would show. They are for a head on the frozen network, whatever the stage, "
        f"and do not hold for images of another kind. {file}"
    )


def _shown(metric: Metric, gain: Gain) -> str:
    bands = gain.low, gain.high, gain.measured_low, gain.measured_high
    if metric.maximize:
        low, high, least, most = (f"{100 * value:.1f}" for value in bands)
        return f"{100 * gain.gain:+.1f} points ({low} to {high}; measured once {least} to {most})"
    low, high, least, most = (f"{-value:+.3f}" for value in bands)
    return f"{metric.label} {-gain.gain:+.3f} ({low} to {high}; measured once {least} to {most})"
