"""How many JPEG files per second are decoded: by Pillow, by torchvision, and by the device (nvJPEG)?

    python -m benchmarks.gpu.decode [--data FOLDER] [--images 2000] [--threads 1 4 8 16] [--rounds 3] [--device cuda]

``Pillow`` is ftexp's decoder, ``torchvision`` is ``decode_jpeg`` on the CPU; ``resized`` adds what ftexp does with each
image before it keeps it, for which torchvision's pixels become an image of Pillow. ``device`` is ``decode_jpeg`` in
batches, which uses nvJPEG on CUDA. The last columns tell how far pixels are from those of ``Pillow``. ``--data`` is a
folder of photographs; without it, smooth noise of 500 x 375 pixels is written.
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, read_file

from benchmarks.image_folders import write_photographs
from benchmarks.results import append_rows, hardware, machine, versions
from ftexp.data.augment.transforms import eval_transform
from ftexp.data.loading.decoding import decode, open_lazily
from ftexp.preprocessing import Preprocessing

SECTION = "Decoding JPEG files"
BATCH = 64
PREPARE = eval_transform(Preprocessing(224, 256, "bicubic", (0.5,) * 3, (0.5,) * 3)).prepare
Files = Sequence[str]


def by_torchvision(file: str) -> Tensor:
    decoded: Tensor = decode_jpeg(read_file(file), mode=ImageReadMode.RGB)
    return decoded.permute(1, 2, 0)


def resized_by_torchvision(file: str) -> Any:
    """With Pillow's reading of the header, which tells what the file is and how it is turned."""
    with open_lazily(file) as image:
        image.getexif()
    return np.array(PREPARE(Image.fromarray(by_torchvision(file).numpy())))


EACH: dict[str, Callable[[str], Any]] = {
    "Pillow": lambda file: np.array(decode(file)),
    "torchvision": by_torchvision,
    "Pillow, resized": lambda file: np.array(PREPARE(decode(file))),
    "torchvision, resized": resized_by_torchvision,
}


def in_threads(one: Callable[[str], Any], threads: int, files: Files) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, files))


def by_device(device: str, threads: int, files: Files) -> list[Tensor]:
    images: list[Tensor] = []
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(files), BATCH):
            contents = list(pool.map(read_file, files[start : start + BATCH]))
            images += [image.permute(1, 2, 0) for image in decode_jpeg(contents, mode=ImageReadMode.RGB, device=device)]
    if device == "cuda":
        torch.cuda.synchronize()
    return images


def levels_apart(expected: Sequence[Any], images: Sequence[Any]) -> tuple[str, str]:
    """The mean and the largest difference, of images that no tag turns."""
    pairs = [(torch.as_tensor(a), torch.as_tensor(b).cpu()) for a, b in zip(expected, images, strict=True)]
    levels = [(a.int() - b.int()).abs().flatten() for a, b in pairs if a.shape == b.shape]
    apart = torch.cat(levels)
    return f"{apart.float().mean():.3f}", str(int(apart.max()))


def measure(files: Files, arguments: argparse.Namespace) -> list[dict[str, object]]:
    sides: dict[tuple[str, int], Callable[[Files], list[Any]]] = {
        (name, threads): partial(in_threads, one, threads)
        for threads in arguments.threads
        for name, one in EACH.items()
    }
    most = max(arguments.threads)
    sides["device", most] = partial(by_device, arguments.device, most)
    found: dict[tuple[str, int], list[tuple[float, float]]] = {side: [] for side in sides}
    pixels = {side: decoded(files[:BATCH]) for side, decoded in sides.items()}  # this warms up, too
    for _ in range(arguments.rounds):
        for side, decoded in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            decoded(files)
            found[side].append((time.perf_counter() - wall, time.process_time() - cpu))
    rows = []
    for (name, threads), measured in found.items():
        rates = [len(files) / wall for wall, _ in measured]
        reference = "Pillow, resized" if name.endswith("resized") else "Pillow"
        mean, largest = levels_apart(pixels[reference, threads], pixels[name, threads])
        rows.append(
            {
                "date": date.today().isoformat(),
                "files": f"{len(files)}, {'photographs' if arguments.data else 'smooth noise'}",
                "side": name,
                "threads": threads,
                "images/s": f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})",
                "CPU ms an image": f"{1e3 * statistics.median(cpu for _, cpu in measured) / len(files):.3f}",
                "n": len(measured),
                "gray levels apart, mean": mean,
                "largest": largest,
                "device": hardware(arguments.device if name == "device" else "cpu"),
                "machine": machine(),
                "versions": versions(),
            }
        )
    return rows


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder of photographs")
    parser.add_argument("--images", type=int, default=2000)
    cores = os.cpu_count() or 1
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, *(n for n in (4, 8) if n < cores), cores}))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data is None:
            write_photographs(Path(folder), arguments.images)
        files = sorted(map(str, (arguments.data or Path(folder)).rglob("*.jpg")))[: arguments.images]
        rows = measure(files, arguments)
    append_rows(SECTION, rows, *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
