"""What ``train.max_minutes`` has cut from the plan of a run, and what it would take to train that."""

from __future__ import annotations

import logging

from ftexp.training.run_time import RunTime

log = logging.getLogger(__name__)


def log_cuts(run_time: RunTime) -> None:
    """Say how many epochs of the plan were cut, and how many minutes more would train them."""
    cut = [
        f"{plan.epochs_cut} of {plan.most // plan.per_epoch} epochs of {name}"
        for name, plan in run_time.plans.items()
        if plan.epochs_cut
    ]
    cut += [f"all {phase.epochs} epochs of {phase.name}" for phase in run_time.unbegun]
    used = f"{run_time.used():.0f} of {run_time.limit:.0f} s are used, and the end is left (train.max_minutes)"
    if not cut:
        log.info("time    %s; no epoch was cut", used)
        return
    more = seconds_of_cuts(run_time)
    about = f": about {more / 60:.1f} minutes more would train them" if more else ""
    log.info("time    %s; cut were %s%s", used, ", ".join(cut), about)


def seconds_of_cuts(run_time: RunTime) -> float:
    """Seconds of what was cut. Those of phases that were not begun are estimated from the phases that were."""
    total, per_cost = 0.0, 0.0
    for phase in run_time.phases:
        plan = run_time.plans.get(phase.name)
        if plan is not None and plan.seconds_per_update is not None:
            epoch = plan.per_epoch * plan.seconds_per_update + plan.validation
            total += epoch * plan.epochs_cut
            per_cost = max(per_cost, epoch * phase.epochs / run_time.cost(phase))
    return total + sum(per_cost * run_time.cost(phase) for phase in run_time.unbegun)
