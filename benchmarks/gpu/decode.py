"""How many JPEG files per second are decoded: by the cores as ftexp does it, and by the device (nvJPEG)?

    python -m benchmarks.gpu.decode [--images 2000] [--rounds 3] [--device cuda]

``cores`` is ftexp's decoder in as many threads as there are cores; ``device`` is torchvision's ``decode_jpeg``, which
uses nvJPEG on CUDA, and the CPU's decoder otherwise. The last columns tell how far its pixels are from ftexp's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, read_file

from benchmarks.image_folders import write_photographs
from benchmarks.results import append_rows, hardware, machine, versions
from ftexp.data.loading.decoding import decode

SECTION = "Decoding JPEG files"
BATCH = 64


def by_cores(files: Sequence[Path]) -> list[Tensor]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda file: torch.from_numpy(np.array(decode(str(file)))).permute(2, 0, 1), files))


def by_device(files: Sequence[Path], device: str) -> list[Tensor]:
    images: list[Tensor] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), BATCH):
            contents = list(pool.map(lambda file: read_file(str(file)), files[start : start + BATCH]))
            images += decode_jpeg(contents, mode=ImageReadMode.RGB, device=device)
    if device == "cuda":
        torch.cuda.synchronize()
    return images


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    sides: dict[str, Callable[[Sequence[Path]], list[Tensor]]] = {
        "cores": by_cores,
        "device": lambda files: by_device(files, arguments.device),
    }
    rates: dict[str, list[float]] = {side: [] for side in sides}
    pixels: dict[str, list[Tensor]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), arguments.images)
        files = sorted(Path(folder).rglob("*.jpg"))
        for side, decoded in sides.items():
            pixels[side] = decoded(files[:BATCH])  # warm up
        for _ in range(arguments.rounds):
            for side, decoded in sides.items():
                started = time.perf_counter()
                decoded(files)
                rates[side].append(len(files) / (time.perf_counter() - started))
    pairs = zip(pixels["cores"], pixels["device"], strict=True)
    levels = torch.cat([(mine.int() - other.cpu().int()).abs().flatten() for mine, other in pairs])
    rows = [
        {
            "date": date.today().isoformat(),
            "side": side,
            "images/s": f"{statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f})",
            "n": len(found),
            "gray levels apart, mean": "-" if side == "cores" else f"{levels.float().mean():.3f}",
            "largest": "-" if side == "cores" else int(levels.max()),
            "device": hardware(arguments.device),
            "machine": machine(),
            "versions": versions(),
        }
        for side, found in rates.items()
    ]
    append_rows(SECTION, rows, *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
