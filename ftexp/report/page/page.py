"""Writes ``report.html``."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ftexp.data.samples import Sample
from ftexp.evaluation.scores import Scores
from ftexp.files.run_files import BEST, REPORT
from ftexp.files.whole_file import replaced_whole
from ftexp.inference.calibration import read_calibration
from ftexp.metric_names import METRICS
from ftexp.models.blocks import Network
from ftexp.report.page.charts import FRAME, curves, reliability
from ftexp.report.page.confusion import draw_matrix, most_confused
from ftexp.report.page.examples import draw_examples
from ftexp.report.page.facts import MAX_CLASSES, MAX_FINDINGS, MAX_GROUPS, Calibration, Facts
from ftexp.report.page.pictures import leaking_pairs
from ftexp.tracking.report_page import PICTURES_BEGIN, PICTURES_END

# In the place of a number that there is not.
NOTHING = "\N{EN DASH}"


def write_report(folder: Path, network: Network, samples: Sequence[Sample], scores: Scores) -> Path:
    """Write the page of a finished run into its folder.

    Args:
        folder: of the run.
        network: with its best weights, in eval mode.
        samples: those of validation, in the order of the scores.
        scores: of validation, with the best weights, before calibration; the page has them calibrated where the run is.

    Raises:
        UserError: when a file of the run is damaged, or an image cannot be read.
    """
    facts, calibrated = Facts.read(folder), read_calibration(folder / BEST)
    temperature = calibrated.temperature if calibrated else 1.0
    scores = scores.at(temperature)
    examples = draw_examples(network, samples, facts.classes, scores, temperature)
    content = {
        "facts": facts,
        "scores": scores,
        "examples": examples,
        "leaking_pairs": leaking_pairs(folder),
        "matrix": draw_matrix(scores.confusion, facts.classes),
        "pairs": most_confused(scores.confusion, facts.classes),
        "curves": curves(facts.history, facts.result["metric"], facts.result["best"]["epoch"]),
        "calibration": (calibration := Calibration.of(scores)),
        "reliability": reliability(calibration.bins) if calibration else None,
        "calibrated": calibrated,
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }
    html = _environment().get_template("report.html").render(content)
    with replaced_whole(folder / REPORT) as unfinished:
        unfinished.write_text(html, encoding="utf-8")
    return folder / REPORT


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ftexp.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "score": _score,
        "interval": _interval,
        "metric": _metric_label,
        "share": _share,
    }
    script = environment.get_template("sort.js").render().strip()
    environment.globals |= {
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "script": Markup(script),
        "pictures_begin": Markup(PICTURES_BEGIN),
        "pictures_end": Markup(PICTURES_END),
        "frame": FRAME,
        "max_classes": MAX_CLASSES,
        "max_findings": MAX_FINDINGS,
        "max_groups": MAX_GROUPS,
    }
    return environment


def _score(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _interval(interval: Sequence[float | None] | None) -> str:
    low, high = interval or (None, None)
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def _share(text: str) -> str:
    return f"{float(text):.3f}" if text else NOTHING


def _number(value: Any) -> str:
    """A number as a person reads it; text as it is, nothing as a dash."""
    if value is None or value == "":
        return NOTHING
    number = float(value)
    if number.is_integer() and abs(number) < 1e15:
        return f"{int(number):,}"
    return f"{number:.4g}" if abs(number) < 1000 else f"{number:,.0f}"


def _metric_label(name: str) -> str:
    return METRICS[name].label
