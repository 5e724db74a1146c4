"""Names for kept activations, made of all they depend on: none can stand for others."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence

import timm
import torch
import torchvision

from ftexp.data.digests import ContentDigests
from ftexp.data.loading.decoding import decoders
from ftexp.data.samples import Sample
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network

# Part of every key: a change of what is kept makes older files unknown.
VERSION = 4


def prefix_digest(network: Network, first_learning_block: str, runtime: Runtime) -> str:
    """A name for everything but the images that activations depend on, the weights of the prefix above all."""
    before = network.names[: network.names.index(first_learning_block)]
    facts = {
        "version": VERSION,
        "network": network.name,
        "blocks": before,
        "preprocessing": network.preprocessing.as_dict(),
        "runtime": [runtime.device.type, runtime.precision, str(runtime.memory_format), platform.machine()],
        "hardware": _hardware(runtime.device),
        "libraries": [torch.__version__, torchvision.__version__, timm.__version__, decoders()],
        "algorithms": [torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()],
    }
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    for block in before:
        for name, tensor in (*network.parameters(block).items(), *network.buffers(block).items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hardware(device: torch.device) -> list[object]:
    """What chooses between kernels whose results differ in rounding."""
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return [torch.cuda.get_device_name(device), torch.version.cuda, cudnn]
    return [torch.backends.cpu.get_cpu_capability()] if device.type == "cpu" else []


def images_key(frozen: str, samples: Sequence[Sample], digests: ContentDigests, view: str = "") -> str:
    """A name for what a prefix makes of some samples.

    Args:
        frozen: of the prefix, by ``prefix_digest``.
        digests: of the images.
        view: of the images, where it is not the one of the weights.
    """
    digest = hashlib.blake2b(f"{frozen} {view}".encode(), digest_size=16)
    for sample in samples:
        digest.update(digests.of(sample).encode())
    return digest.hexdigest()
