"""The plan of a run: what is trained in each phase, for how long, and at which learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from ftexp.finetune.adapters import prepared
from ftexp.finetune.freezing import trainable_parameters
from ftexp.finetune.param_groups import block_rate
from ftexp.finetune.phases import Phase
from ftexp.finetune.schedules import Span, schedule_factor
from ftexp.models.blocks import HEAD, Network
from ftexp.report.plots import GREY, label_plainly, save

# The axis ends at this share of the highest rate, so that the last steps of a cosine do not take most of it.
SMALLEST_SHARE = 1e-4


def plan_rows(phases: Sequence[Phase], network: Network, spans: Sequence[Span]) -> list[dict[str, object]]:
    """A row per phase: what is trainable, the number of parameters, the length, the learning rates.

    Args:
        phases: the planned phases.
        network: the network.
        spans: length of each phase.
    """
    rows = []
    for phase, span in zip(phases, spans, strict=True):
        backbone = [block for block in phase.learning if block != HEAD]
        rates = [block_rate(phase.optimizer, network.names, block) for block in backbone]
        with prepared(network, phase.change):
            trainable = trainable_parameters(network, phase)
        rows.append(
            {
                "phase": phase.name,
                "learns": phase.kind + _abbreviated(phase.learning),
                "parameters": sum(p.numel() for p in trainable.values()),
                "epochs": "solved" if phase.solved else phase.epochs,
                "steps": 0 if phase.solved else span.steps,
                "lr head": None if phase.solved else block_rate(phase.optimizer, network.names, HEAD),
                "lr backbone, highest": max(rates, default=None),
                "lowest": min(rates, default=None),
            }
        )
    return rows


def plot_plan(phases: Sequence[Phase], network: Network, spans: Sequence[Span], path: Path) -> None:
    """Plot the learning rate of every block over the steps of all phases; frozen blocks and solved heads have no line.

    Args:
        phases: the planned phases.
        network: the network.
        spans: length of each phase.
        path: the PNG file to write.
    """
    figure = Figure(figsize=(9.0, 4.5), dpi=120)
    axes = figure.subplots()
    shades = dict(zip(network.names, _shades(len(network.names)), strict=True))
    highest, start, labelled = 0.0, 0, set[str]()
    for phase, span in zip(phases, spans, strict=True):
        if phase.solved:
            continue
        ticks, rates = _curve(phase, network.names, span)
        for block, values in rates.items():
            label = None if block in labelled else block
            axes.plot([start + tick for tick in ticks], values, color=shades[block], linewidth=1.4, label=label)
            labelled.add(block)
            highest = max(highest, *values)
        axes.axvline(start, color="#bbbbbb", linewidth=0.8, zorder=0)
        middle, above = start + span.steps / 2, axes.get_xaxis_transform()
        axes.text(middle, 1.02, phase.name, transform=above, ha="center", color=GREY, fontsize=9)
        start += span.steps
    axes.set_yscale("log")
    label_plainly(axes.yaxis)
    axes.set_ylim(highest * SMALLEST_SHARE, highest * 1.6)
    axes.set_xlim(0, start)
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: -network.names.index(names[i]))[:16]
    chosen = [handles[i] for i in order], [names[i] for i in order]
    # Set here, because a layout engine would take as long as all else.
    figure.subplots_adjust(left=0.09, right=0.93 - 0.0085 * max(map(len, chosen[1])), bottom=0.11, top=0.93)
    axes.legend(*chosen, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    save(figure, path)


def _curve(phase: Phase, names: Sequence[str], span: Span) -> tuple[list[int], dict[str, list[float]]]:
    """The steps at which to draw, and the rate of each trainable block at these steps."""
    steps_per_tick = 1 if phase.scheduler.interval == "step" else span.steps_per_epoch
    ticks = sorted({round(i * (span.steps - 1) / 200) for i in range(201)})
    factors = [schedule_factor(phase.scheduler, tick // steps_per_tick, span) for tick in ticks]
    rates = {block: block_rate(phase.optimizer, names, block) for block in phase.learning}
    return ticks, {block: [rate * factor for factor in factors] for block, rate in rates.items()}


def _shades(count: int) -> list[tuple[float, float, float, float]]:
    """Colours for the blocks: from light blue (the stem) to dark blue (next to the head), and orange for the head."""
    blues = [colormaps["Blues"](0.3 + 0.65 * i / max(1, count - 2)) for i in range(count - 1)]
    return [*blues, (0.835, 0.369, 0.0, 1.0)]


def _abbreviated(blocks: Sequence[str]) -> str:
    return ", ".join(blocks) if len(blocks) <= 3 else f"{blocks[0]} ... {blocks[-2]}, {blocks[-1]}"
