"""What does compiling a phase cost, and what does it save in each step?

    python -m benchmarks.compile_cost [MODEL ...] [--blocks 0 1 3 all] [--device auto] [--precision auto]
                                      [--image-size 224] [--batch-size 32] [--steps 10] [--rounds 5]

For each number of trained blocks below the head: a phase's forward (the suffix, on activations of the frozen blocks) is
compiled as in a run, with inductor's cache empty. "compile" is what the first training step and the first scoring pass
take beyond later ones; "again" is the same with the cache of the first time, as in the later trials of a sweep. Then
eager and compiled steps take turns. "pays back after" is the number of steps, each with a quarter of a scoring pass, in
which the time saved makes up for compiling. ``ftexp/machine/device_kinds.py`` has the constants that follow. Appends a
table to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache

import ftexp
from benchmarks.results import append_rows, machine, versions
from ftexp.config import Config
from ftexp.finetune.freezing import open_blocks, set_train_mode
from ftexp.finetune.optimizers import build_optimizer
from ftexp.finetune.param_groups import build_param_groups
from ftexp.finetune.phases import Phase, plan_phases
from ftexp.machine.runtime import Runtime, prepare_runtime
from ftexp.models.blocks import Network
from ftexp.models.catalogue import build_network
from ftexp.models.prefix import split
from ftexp.report.tables import format_table
from ftexp.training.compilation import CompiledForward
from ftexp.training.inputs.batches import Forward
from ftexp.training.losses import CrossEntropy
from ftexp.training.step import Step

# Scoring passes per training step: a validation split of a quarter of the training split.
SCORING_SHARE = 0.25


class Side:
    """Training steps and scoring passes with one forward.

    Args:
        forward: function from inputs to logits.
        network: the network.
        phase: the phase.
        runtime: the device.
        batch: inputs and labels.
    """

    def __init__(
        self, forward: Forward, network: Network, phase: Phase, runtime: Runtime, batch: tuple[Tensor, Tensor]
    ) -> None:
        optimizer = build_optimizer(phase.optimizer, build_param_groups(network, phase), runtime.device)
        self._step = Step(forward, optimizer, CrossEntropy(0.1), runtime, clip_norm=1.0)
        self._forward, self._network, self._phase, self._runtime = forward, network, phase, runtime
        self._batch = batch

    def train(self, count: int = 1) -> float:
        """Seconds per training step."""
        set_train_mode(self._network, self._phase)
        return self._timed(lambda: (self._step.backward(*self._batch), self._step.update()), count)

    @torch.inference_mode()
    def score(self, count: int = 1) -> float:
        """Seconds per scoring pass."""
        self._network.module.eval()
        inputs = self._batch[0].clone()
        with self._runtime.autocast():
            return self._timed(lambda: self._forward(inputs), count)

    def _timed(self, call: Callable[[], object], count: int) -> float:
        self._wait()
        started = time.perf_counter()
        for _ in range(count):
            call()
        self._wait()
        return (time.perf_counter() - started) / count

    def _wait(self) -> None:
        if self._runtime.device.type == "cuda":
            torch.cuda.synchronize()


def measure(config: Config, arguments: argparse.Namespace) -> dict[str, object]:
    runtime = prepare_runtime(config.runtime)
    network = build_network(config.model, None, 10, arguments.image_size)
    runtime.place(network.module)
    (phase,) = plan_phases(config, network.names, network)
    open_blocks(network, phase)
    images = runtime.place_images(torch.randn(arguments.batch_size, 3, arguments.image_size, arguments.image_size))
    labels = torch.randint(10, (len(images),)).to(runtime.device)
    network.module.eval()
    prefix, suffix = split(network, phase.learning[0])
    open_blocks(network, phase)
    with torch.no_grad(), runtime.autocast():
        batch = prefix(images).clone(), labels
    given = network, phase, runtime, batch
    eager = Side(suffix, *given)
    for warm_up in (eager.train, eager.score):
        warm_up(3)
    size, mode = len(images), config.runtime.compile_mode
    firsts = []
    with fresh_cache():
        for _ in range(2):
            counters.clear()
            compiled = Side(CompiledForward(suffix, size, size, mode), *given)
            firsts.append((compiled.train(), compiled.score()))
            graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
        for warm_up in (compiled.train, compiled.score):
            warm_up(3)
        rounds = [
            [call(arguments.steps) for call in (eager.train, compiled.train, eager.score, compiled.score)]
            for _ in range(arguments.rounds)
        ]
    train, fast_train, score, fast_score = (statistics.median(column) for column in zip(*rounds, strict=True))
    cost, again = ((first - fast_train) + (scored - fast_score) for first, scored in firsts)
    saved = train - fast_train + SCORING_SHARE * (score - fast_score)
    return {
        "date": date.today().isoformat(),
        "model": config.model.name,
        "trained blocks": f"{len(phase.learning) - 1} of {len(network.names) - 1}",
        "images": f"{arguments.batch_size} at {arguments.image_size} px",
        "graphs, breaks": f"{graphs}, {breaks}",
        "compile s (train + score)": f"{cost:.1f} ({firsts[0][0]:.1f} + {firsts[0][1]:.1f})",
        "again s": f"{again:.1f}",
        "step ms, eager": f"{1e3 * train:.1f}",
        "compiled": f"{1e3 * fast_train:.1f}",
        "scoring ms, eager": f"{1e3 * score:.1f}",
        "compiled ": f"{1e3 * fast_score:.1f}",
        "pays back after": f"{math.ceil(cost / saved):,} steps" if saved > 0 else "never",
        "device": f"{runtime.device.type}, {runtime.precision}",
        "machine": machine(),
        "versions": versions(),
    }


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", default=["efficientnet_lite0"])
    parser.add_argument("--blocks", nargs="+", default=["0", "1", "3", "all"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--mode", default="default")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    of_runtime = [f"runtime.{key}={getattr(arguments, key)}" for key in ("device", "precision")]
    of_runtime.append(f"runtime.compile_mode={arguments.mode}")
    for model in arguments.models:
        for blocks in arguments.blocks:
            stage = {"0": ["stage=head"], "all": ["stage=full"]}.get(blocks)
            stage = stage or ["stage=partial", f"stage.last_blocks={blocks}"]
            row = measure(ftexp.compose(f"model={model}", *stage, *of_runtime), arguments)
            print(format_table([row]), flush=True)
            append_rows("What compiling costs and saves", [row], *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
