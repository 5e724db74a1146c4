"""Draws the worst pairs of images side by side; those that were aligned, also one over the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ftexp.audit.findings import Finding
from ftexp.audit.geometry import laid_over
from ftexp.audit.local_features import find_local_features
from ftexp.data.loading.images import open_image
from ftexp.data.samples import Sample

MAX_PAIRS = 8
KINDS_WITH_IMAGES = ("same_image", "near_duplicate", "edited_copy", "same_scene", "two_labels")


def draw_worst_pairs(path: Path, findings: Sequence[Finding], samples: Sequence[Sample]) -> None:
    """Draw up to 8 pairs of images, some of each kind, the most similar first; without pairs it draws nothing."""
    pairs = _choose(findings)
    if not pairs:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second
    from matplotlib.figure import Figure

    by_path = {sample.path: sample for sample in samples}
    columns = 3 if any(one.inliers for one in pairs) else 2
    figure = Figure(figsize=(3.5 * columns, 3 * len(pairs)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(pairs), columns, squeeze=False)
    for row, finding in zip(axes, pairs, strict=True):
        first, second = images = [open_image(by_path[name]) for name in (finding.path_a, finding.path_b)]
        ends = ((finding.split_a, finding.path_a), (finding.split_b, finding.path_b))
        for axis, image, (split, name) in zip(row, images, ends, strict=False):
            axis.imshow(image)
            axis.set_title(f"{split}: …{name[-40:]}" if len(name) > 40 else f"{split}: {name}", fontsize=7)
        if finding.inliers and (over := _one_over_the_other(first, second)) is not None:
            row[2].imshow(over)
            row[2].set_title(f"the second over the first: {finding.inliers} points match", fontsize=7)
        for axis in row:
            axis.set_axis_off()
        row[0].text(0, -0.04, f"{finding.kind}  {finding.score:.3f}", transform=row[0].transAxes, fontsize=8, va="top")
    figure.savefig(path, dpi=100)


def _one_over_the_other(first: Image.Image, second: Image.Image) -> Image.Image | None:
    """The first picture pale and in gray, and on it the second one where both show the same."""
    laid = laid_over(find_local_features(first), find_local_features(second), first.size, np.asarray(second))
    if laid is None:
        return None
    below = np.asarray(Image.blend(first.convert("L").convert("RGB"), Image.new("RGB", first.size, "white"), 0.5))
    return Image.fromarray(np.where(laid[:, :, 3:] == 255, laid[:, :, :3], below))


def _choose(findings: Sequence[Finding]) -> list[Finding]:
    """Choose the most similar pairs, one of each kind in turn."""
    by_kind = [
        sorted((f for f in findings if f.kind == kind), key=lambda finding: -finding.score)
        for kind in KINDS_WITH_IMAGES
    ]
    in_turn = [pairs[rank] for rank in range(MAX_PAIRS) for pairs in by_kind if rank < len(pairs)]
    return in_turn[:MAX_PAIRS]
