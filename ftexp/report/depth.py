"""What each block knows of the classes, in the folder of a run: ``depth.json``, ``depth.png``, and lines of the log."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from ftexp.files.json_files import write_json
from ftexp.files.run_files import DEPTH, DEPTH_PICTURE
from ftexp.probe.depth import DepthProbe
from ftexp.report.plots import BLUE, GREY, ORANGE, save

log = logging.getLogger(__name__)


def write_depth(probe: DepthProbe, chosen: str, folder: Path) -> None:
    """Log what was found, and write ``depth.json`` and ``depth.png``.

    Args:
        probe: cross-validated heads on the outputs of the blocks.
        chosen: what the last layer gets: ``last`` or ``all``.
        folder: the folder of the run.
    """
    log.info("%s", depth_line(probe, chosen))
    log.info("%s", blocks_line(probe))
    if probe.late_is_worse:
        log.warning("%s", warning_line(probe))
    write_json(folder / DEPTH, depth_content(probe, chosen))
    plot_depth(probe, folder / DEPTH_PICTURE)


def depth_line(probe: DepthProbe, chosen: str) -> str:
    """What the last layer gets, and the difference that it makes."""
    what = {"last": "the network's own features", "all": "the outputs of all blocks"}[chosen]
    gain = probe.gain_of_all
    return (
        f"depth   the last layer gets {what} (head.depth={chosen}): by cross-validation on {probe.num_images:,} "
        f"training images in {probe.num_groups:,} groups, all blocks change accuracy by {100 * gain.mean:+.1f} "
        f"± {100 * gain.error:.1f} points and log loss by {-probe.loss_gain_of_all.mean:+.3f}"
    )


def blocks_line(probe: DepthProbe) -> str:
    """The accuracy of a head on the output of each block, and how many of the last blocks to train."""
    scores = ", ".join(f"{boundary.block} {boundary.alone:.3f}" for boundary in probe.boundaries)
    return (
        f"depth   accuracy on each block's output: {scores}; to train blocks, try stage.last_blocks={probe.last_blocks}"
    )


def warning_line(probe: DepthProbe) -> str:
    """That late blocks are worse than early ones, and what the reasons may be."""
    best, last = probe.best, probe.boundaries[-1]
    return (
        f"depth   a head knows less from the output of {last.block} (accuracy {last.alone:.3f}) than from that of "
        f"{best.block} ({best.alone:.3f}). In a sound pretrained network the late blocks know more. Check that the "
        "weights belong to this network and are complete (model.weights), and that images get the transforms that they "
        "were trained with (model.image_size, data.white_level); or the images are very unlike those, and the last "
        "blocks have to be trained."
    )


def depth_content(probe: DepthProbe, chosen: str) -> dict[str, object]:
    """The content of ``depth.json``."""
    return {
        "chosen": chosen,
        "gain_of_all": asdict(probe.gain_of_all),
        "loss_gain_of_all": asdict(probe.loss_gain_of_all),
        "num_images": probe.num_images,
        "num_groups": probe.num_groups,
        "last_blocks": probe.last_blocks,
        "late_is_worse": probe.late_is_worse,
        "blocks": [asdict(boundary) for boundary in probe.boundaries],
    }


def plot_depth(probe: DepthProbe, path: Path) -> None:
    """Plot the accuracy on each block's output, alone and with all before it.

    Args:
        probe: cross-validated heads on the outputs of the blocks.
        path: the PNG file to write.
    """
    figure = Figure(figsize=(7.0, 4.0), dpi=120, layout="constrained")
    axes = figure.subplots()
    places = range(len(probe.boundaries))
    for label, color, values in (
        ("this output alone", BLUE, [boundary.alone for boundary in probe.boundaries]),
        ("this and all before it", ORANGE, [boundary.up_to for boundary in probe.boundaries]),
    ):
        axes.plot(places, values, marker="o", markersize=3.5, linewidth=1.6, color=color, label=label)
    first = len(probe.boundaries) - probe.last_blocks
    axes.axvspan(first - 0.5, len(places) - 0.5, color=GREY, alpha=0.12, label=f"stage.last_blocks={probe.last_blocks}")
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_xticks(list(places), [b.block for b in probe.boundaries], rotation=45 if len(places) > 8 else 0)
    axes.set_ylabel("cross-validated accuracy")
    axes.set_xlabel("output of the block")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="best", frameon=False)
    save(figure, path)
