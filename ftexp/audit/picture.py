"""Draws the worst pairs of images side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ftexp.audit.findings import Finding
from ftexp.data.loading.images import open_image
from ftexp.data.samples import Sample

MAX_PAIRS = 8
KINDS_WITH_IMAGES = ("same_image", "near_duplicate", "edited_copy", "same_scene", "two_labels")


def draw_worst_pairs(path: Path, findings: Sequence[Finding], samples: Sequence[Sample]) -> None:
    """Draw up to 8 pairs of images, some of each kind, the most similar first; without pairs it draws nothing."""
    pairs = _choose(findings)
    if not pairs:
        return
    by_path = {sample.path: sample for sample in samples}
    figure = Figure(figsize=(7, 3 * len(pairs)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(pairs), 2, squeeze=False)
    for row, finding in zip(axes, pairs, strict=True):
        ends = ((finding.split_a, finding.path_a), (finding.split_b, finding.path_b))
        for axis, (split, name) in zip(row, ends, strict=True):
            axis.imshow(open_image(by_path[name]))
            axis.set_axis_off()
            axis.set_title(f"{split}: …{name[-40:]}" if len(name) > 40 else f"{split}: {name}", fontsize=7)
        row[0].text(0, -0.04, f"{finding.kind}  {finding.score:.3f}", transform=row[0].transAxes, fontsize=8, va="top")
    figure.savefig(path, dpi=100)


def _choose(findings: Sequence[Finding]) -> list[Finding]:
    """Choose the most similar pairs, one of each kind in turn."""
    by_kind = [
        sorted((f for f in findings if f.kind == kind), key=lambda finding: -finding.score)
        for kind in KINDS_WITH_IMAGES
    ]
    in_turn = [pairs[rank] for rank in range(MAX_PAIRS) for pairs in by_kind if rank < len(pairs)]
    return in_turn[:MAX_PAIRS]
