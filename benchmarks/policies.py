"""How long do TrivialAugment and RandAugment of ftexp, torchvision and kornia take on batches on the device?

    python -m benchmarks.policies [--image-sizes 64 224] [--batch-size 32] [--batches 10] [--rounds 7] [--device cpu]

ftexp draws for each image and changes all images of one operation together. torchvision.transforms.v2 draws once a
call: called per image it does what ftexp does, called on the batch it gives all images the same operation and strength.
kornia's policies draw one operation a call for all images, and a strength for each; where kornia is not installed, its
rows are left out. All change the same batch of noise, with bilinear interpolation, in turn. The table also has the
number of torch operations per batch, without views: on a GPU, each of them launches at least one kernel. It is appended
to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import InterpolationMode, v2

from benchmarks.results import append_rows, machine, versions
from ftexp.data.augment.batch_policies import Policy
from ftexp.report.tables import format_table

# uint8 [B, 3, H, W] on the device -> the same, changed.
Change = Callable[[Tensor], Tensor]


def ftexp(name: str, size: int, device: torch.device) -> Change:
    policy = Policy(name, size, "bilinear", torch.tensor([124.0, 116.0, 104.0], device=device))
    rng = np.random.default_rng(0)
    return lambda images: policy.apply(images.float(), [policy.draw(rng) for _ in images]).byte()


def torchvision(name: str) -> Change:
    make = v2.RandAugment if name == "rand" else v2.TrivialAugmentWide
    change: Change = make(interpolation=InterpolationMode.BILINEAR, fill=[124, 116, 104])
    return change


def per_image(change: Change) -> Change:
    return lambda images: torch.stack([change(image) for image in images])


def kornia(name: str) -> Change:
    auto = import_module("kornia.augmentation.auto")
    policy = auto.RandAugment(n=2, m=9) if name == "rand" else auto.TrivialAugment()
    return lambda images: (policy(images / 255.0) * 255).byte()


def sides(name: str, size: int, device: torch.device) -> dict[tuple[str, str], Change]:
    """Side, and for what it draws an operation -> what it does."""
    found = {
        ("ftexp", "each image"): ftexp(name, size, device),
        ("torchvision, per image", "each image"): per_image(torchvision(name)),
        ("torchvision, batch", "the batch"): torchvision(name),
    }
    if find_spec("kornia"):
        one = kornia(name)
        found["kornia, per image", "each image"] = per_image(lambda image: one(image[None])[0])
        found["kornia, batch", "the batch"] = one
    return found


class Operations(TorchDispatchMode):
    """Counts the operations that compute or copy something."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def operations(change: Change, images: Tensor, num_batches: int) -> float:
    """The median number of operations per batch."""
    counts = []
    for _ in range(num_batches):
        with Operations() as counted:
            change(images)
        counts.append(counted.count)
    return statistics.median(counts)


def milliseconds(change: Change, images: Tensor, num_batches: int) -> float:
    """Milliseconds per batch; the mean over several batches, because the time depends on the random operations."""
    started = time.perf_counter()
    for _ in range(num_batches):
        change(images)
    if images.device.type == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started) / num_batches


def measure(name: str, size: int, arguments: argparse.Namespace) -> list[dict[str, object]]:
    device = torch.device(arguments.device)
    shape = (arguments.batch_size, 3, size, size)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)
    torch.manual_seed(0)
    changes = sides(name, size, device)
    for change in changes.values():
        assert change(images).shape == images.shape
        milliseconds(change, images, 3)  # warm up
    rounds = [
        {side: milliseconds(change, images, arguments.batches) for side, change in changes.items()}
        for _ in range(arguments.rounds)
    ]
    rows = []
    for side in changes:
        times = [one[side] for one in rounds]
        ratios = [one[side] / one["ftexp", "each image"] for one in rounds]
        rows.append(
            {
                "date": date.today().isoformat(),
                "policy": name,
                "images": f"{arguments.batch_size} at {size} px",
                "side": side[0],
                "one operation for": side[1],
                "ms a batch (min to max)": f"{statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f})",
                "times ftexp": f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                "operations a batch": f"{operations(changes[side], images, arguments.batches):.0f}",
                "n": f"{arguments.rounds} x {arguments.batches} batches",
                "device": device.type,
                "machine": machine(),
                "versions": versions(),
            }
        )
    return rows


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policies", nargs="+", default=["trivial", "rand"], choices=["trivial", "rand"])
    parser.add_argument("--image-sizes", nargs="+", type=int, default=[64, 224])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    rows = [
        row for name in arguments.policies for size in arguments.image_sizes for row in measure(name, size, arguments)
    ]
    print(format_table(rows))
    append_rows("Augmentation policies of whole batches", rows, *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
