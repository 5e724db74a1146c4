"""Image files, and batches of uint8 images as they are before they are normalised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ftexp.data.augment.transforms import ImageTransform
from ftexp.data.digests import ContentDigests
from ftexp.data.loading.sampler import BatchSettings, EpochSampler
from ftexp.data.loading.tensor_store import TensorStore
from ftexp.data.samples import Sample
from ftexp.machine.runtime import Runtime
from ftexp.training.inputs.batches import BatchContext, SampledBatches
from ftexp.training.inputs.choose_batches import choose_batches


def photographs(folder: Path, count: int, seed: int = 0) -> list[Sample]:
    """JPEG files of several sizes, smaller and larger than what is kept."""
    rng, samples = np.random.default_rng(seed), []
    for i in range(count):
        height, width = rng.integers(6, 40, 2)
        path = folder / f"{seed}-{i}.jpg"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(path)
        samples.append(Sample(str(path), "ab"[i % 2]))
    return samples


def batches_of(
    samples: Sequence[Sample],
    transform: ImageTransform,
    store: TensorStore | None = None,
    workers: int | str = 0,
    **settings: object,
) -> SampledBatches:
    """On the CPU, in fours unless ``batch_size`` says otherwise, of the seed 0."""
    runtime = Runtime(torch.device("cpu"), "fp32", False, torch.contiguous_format, workers)
    context = BatchContext(runtime, lambda images: images, ContentDigests(), store, TensorStore(None, 0))
    class_to_idx = {label: number for number, label in enumerate(sorted({sample.label for sample in samples}))}
    chosen = BatchSettings(**{"batch_size": 4, "seed": 0, "keep_pixels": "device" if store else "no", **settings})
    return choose_batches(EpochSampler(samples, class_to_idx, chosen), transform, context)
