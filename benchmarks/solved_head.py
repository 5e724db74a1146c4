"""Is a solved head as good as one that is trained by steps, and how long does it take beside scikit-learn?

    python -m benchmarks.solved_head scores hymenoptera data=imagefolder data.root=FOLDER
    python -m benchmarks.solved_head speed --samples 20000 --features 2064 --classes 100

``scores``: one pass of the frozen network over train and val; then, for several random splits of these features, the
solved head beside AdamW with the settings of ``stage=head`` in ``conf/`` (which keeps the best of its epochs by
validation accuracy), both scored on images that neither saw. With ``--features FILE``, the features are kept there.
``speed``: the path of strengths on made-up features, its peak memory, one epoch of AdamW on them times 15, and
scikit-learn's LogisticRegression for the chosen strength alone. Both add rows to results.md.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

import ftexp
from benchmarks.results import append_rows, machine, versions
from ftexp.finetune.schedules import Span, schedule_factor
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.preparation.prepare import prepare
from ftexp.probe.logistic import LogisticProblem
from ftexp.probe.strength import Chosen, score_logits, soft_targets, solve_on_validation
from ftexp.training.inputs.features import feature_inputs, gathered
from ftexp.training.inputs.input_source import InputSource

AS_IT_IS = ("head.depth=last", "tracking=none", "audit.on_leak=off", "runtime.device=cpu")
SMOOTHING = 0.1
EPOCHS, BATCH, RATE, DECAY = 15, 32, 1e-3, 1e-2


def features_of(overrides: Sequence[str]) -> tuple[Tensor, Tensor, int]:
    """Features [N, D] and labels [N] of train and val together, and the number of classes."""
    config = ftexp.compose("stage=head", *AS_IT_IS, *overrides)
    with TemporaryDirectory() as folder:
        prepared = prepare(config, Path(folder), ONE_PROCESS, score_test=False)
    settled, runtime = prepared.settled, prepared.runtime
    settled.network.module.eval()
    with InputSource(settled.config, settled.network, settled.splits, runtime) as source:
        opened = feature_inputs(source, settled.network, settled.phases[0], runtime)
        train, val = (gathered(opened.before_last, b, runtime) for b in (opened.inputs.train, opened.inputs.val))
    assert train is not None
    assert val is not None
    return torch.cat([train[0], val[0]]), torch.cat([train[1], val[1]]), len(settled.splits.classes)


def by_steps(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], num_classes: int, seed: int, epochs: int = EPOCHS
) -> nn.Linear:
    """AdamW, warmup and cosine, with the rates of conf/; the best epoch by validation accuracy."""
    torch.manual_seed(seed)
    layer = nn.Linear(train[0].shape[1], num_classes)
    groups = [{"params": [layer.weight], "weight_decay": DECAY}, {"params": [layer.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    batches = -(-len(train[0]) // BATCH)
    schedule, span = ftexp.compose("stage=head").scheduler, Span(epochs, batches, len(train[0]))
    best, weights, tick = -1.0, layer.state_dict(), 0
    for _ in range(epochs):
        for rows in torch.randperm(len(train[0])).split(BATCH):
            for group in optimizer.param_groups:
                group["lr"] = RATE * schedule_factor(schedule, tick, span)
            optimizer.zero_grad()
            F.cross_entropy(layer(train[0][rows]), train[1][rows], label_smoothing=SMOOTHING).backward()
            nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
            tick += 1
        with torch.no_grad():
            accuracy = float((layer(val[0]).argmax(1) == val[1]).float().mean())
        if accuracy > best:
            best, weights = accuracy, {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer.load_state_dict(weights)
    return layer


def solved(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], num_classes: int) -> Chosen:
    targets = soft_targets(train[1], num_classes, SMOOTHING)
    problem = LogisticProblem.of_targets(train[0], targets, [train[0].shape[1]])
    return solve_on_validation(problem, *val, "accuracy")


def kept_features(file: Path | None, overrides: Sequence[str]) -> tuple[Tensor, Tensor, int]:
    """``features_of``, from the file if it is there."""
    if file is None:
        return features_of(overrides)
    if not file.exists():
        torch.save(features_of(overrides), file)
    kept: tuple[Tensor, Tensor, int] = torch.load(file)
    return kept


def compare(name: str, kept: tuple[Tensor, Tensor, int], splits: int) -> dict[str, object]:
    features, labels, num_classes = kept
    figures: dict[str, list[float]] = {key: [] for key in ("solved", "steps", "gain", "seconds", "step seconds")}
    losses: dict[str, list[float]] = {"solved": [], "steps": []}
    for seed in range(splits):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        first, second = round(0.6 * len(order)), round(0.8 * len(order))
        train, val, unseen = (
            (features[rows], labels[rows]) for rows in (order[:first], order[first:second], order[second:])
        )
        started = time.perf_counter()
        chosen = solved(train, val, num_classes)
        middle = time.perf_counter()
        with torch.no_grad():
            stepped = by_steps_logits(train, val, unseen[0], num_classes, seed)
        ended = time.perf_counter()
        one, other = (score_logits(logits, unseen[1]) for logits in (chosen.solution.logits(unseen[0]), stepped))
        figures["solved"].append(one.accuracy)
        figures["steps"].append(other.accuracy)
        figures["gain"].append(one.accuracy - other.accuracy)
        figures["seconds"].append(middle - started)
        figures["step seconds"].append(ended - middle)
        losses["solved"].append(one.loss)
        losses["steps"].append(other.loss)
    return {
        "date": date.today().isoformat(),
        "set": name,
        "images": len(labels),
        "splits": splits,
        "accuracy, solved": _spread(figures["solved"]),
        "accuracy, by steps": _spread(figures["steps"]),
        "gain": _spread(figures["gain"]),
        "log loss, solved": _spread(losses["solved"]),
        "log loss, by steps": _spread(losses["steps"]),
        "seconds, solved": f"{statistics.median(figures['seconds']):.2f}",
        "seconds, by steps": f"{statistics.median(figures['step seconds']):.2f}",
        "machine": machine(),
        "versions": versions(),
    }


def by_steps_logits(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], unseen: Tensor, num_classes: int, seed: int
) -> Tensor:
    with torch.enable_grad():
        layer = by_steps(train, val, num_classes, seed)
    logits: Tensor = layer(unseen)
    return logits


def _spread(values: Sequence[float]) -> str:
    """Mean and standard error."""
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def speed(samples: int, features: int, classes: int, *, compare: bool) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    centres = 0.12 * torch.randn(classes, features, generator=generator)
    scales = torch.logspace(0, -1.5, features)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, classes, (count,), generator=generator)
        noise = torch.randn(count, features, generator=generator).mul_(scales)
        return noise.add_(0.3 * centres[labels]), labels

    train, val = draw(samples), draw(samples // 5)
    before = _peak()
    started = time.perf_counter()
    chosen = solved(train, val, classes)
    seconds = time.perf_counter() - started
    peak, solution = _peak(), chosen.solution
    started = time.perf_counter()
    by_steps(train, val, classes, 0, epochs=1)
    epoch = time.perf_counter() - started
    theirs = "not run"
    if compare:
        spread = train[0].var(dim=0, correction=0).mean().sqrt()
        other = LogisticRegression(C=1 / (solution.strength * samples), tol=1e-4, max_iter=1000)
        values = ((train[0] - train[0].mean(dim=0)) / spread).numpy()
        started = time.perf_counter()
        other.fit(values, train[1].numpy())
        theirs = f"{time.perf_counter() - started:.1f}"
    return {
        "date": date.today().isoformat(),
        "samples x features x classes": f"{samples:,} x {features:,} x {classes}",
        "strengths": len(chosen.path),
        "iterations": sum(point.iterations for point in chosen.path) + solution.iterations,
        "seconds, path and optimum": f"{seconds:.1f}",
        "seconds, 15 epochs of steps": f"{EPOCHS * epoch:.1f}",
        "seconds, scikit-learn, one strength": theirs,
        "relative gap": f"{solution.duality_gap / solution.objective:.0e}",
        "MiB before": f"{before:.0f}",
        "MiB at the peak": f"{peak:.0f}",
        "machine": machine(),
        "versions": versions(),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    scores = commands.add_parser("scores")
    scores.add_argument("name")
    scores.add_argument("overrides", nargs="*")
    scores.add_argument("--splits", type=int, default=5)
    scores.add_argument("--features", type=Path)
    timing = commands.add_parser("speed")
    timing.add_argument("--samples", type=int, default=20_000)
    timing.add_argument("--features", type=int, default=2_064)
    timing.add_argument("--classes", type=int, default=100)
    timing.add_argument("--alone", action="store_true", help="without scikit-learn")
    given = parser.parse_args()
    if given.command == "scores":
        kept = kept_features(given.features, given.overrides)
        append_rows("The solved head", [compare(given.name, kept, given.splits)])
    else:
        row = speed(given.samples, given.features, given.classes, compare=not given.alone)
        append_rows("The solved head: seconds and memory", [row])


if __name__ == "__main__":
    main()
