"""Names for cached activations, made from everything that they depend on, so that stale ones are never used."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

import timm
import torch
import torchvision

from ftexp.data.digests import ContentDigests
from ftexp.data.loading.decoding import decoders
from ftexp.data.samples import Sample
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.models.tensor_digest import add_tensors

# Part of every name; raise it when the cached content changes, so that older files are not used.
VERSION = 4
# What runs the frozen blocks.
EAGER: Final = "eager"
ONNXRUNTIME: Final = "onnxruntime"


def prefix_digest(network: Network, first_learning_block: str, runtime: Runtime) -> str:
    """A name for everything that activations depend on except the images, such as the weights of the prefix.

    Args:
        network: the network.
        first_learning_block: the first block after the prefix.
        runtime: the device and the precision.
    """
    before = network.names[: network.names.index(first_learning_block)]
    facts: dict[str, object] = {
        "version": VERSION,
        "network": network.name,
        "blocks": before,
        "preprocessing": network.preprocessing.as_dict(),
        "runtime": [runtime.device.type, runtime.precision, str(runtime.memory_format), platform.machine()],
        "hardware": _hardware(runtime.device),
        "libraries": [torch.__version__, torchvision.__version__, timm.__version__, decoders()],
        "algorithms": [torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()],
    }
    if taps := network.taps_before(first_learning_block):
        facts["taps"] = [tap.as_dict() for tap in taps]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    for block in before:
        add_tensors(digest, (*network.parameters(block).items(), *network.buffers(block).items()))
    return digest.hexdigest()


def engine_digest(frozen: str, engine: str) -> str:
    """The name of a prefix that an engine runs: that from ``prefix_digest`` for torch's own operators."""
    if engine == EAGER:
        return frozen
    versions = [f"{package} {version(package)}" for package in ("onnx", "onnxruntime")]
    return hashlib.blake2b(" ".join([frozen, engine, *versions]).encode(), digest_size=16).hexdigest()


def _hardware(device: torch.device) -> list[object]:
    """The hardware and libraries on which the choice of kernels, and so the rounding, depends."""
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return [torch.cuda.get_device_name(device), torch.version.cuda, cudnn]
    return [torch.backends.cpu.get_cpu_capability()] if device.type == "cpu" else []


def images_key(frozen: str, samples: Sequence[Sample], digests: ContentDigests, view: str = "") -> str:
    """A name for the activations of some samples.

    Args:
        frozen: the name of the prefix from ``prefix_digest``.
        samples: the samples in order.
        digests: digests of the images.
        view: what a random view depends on; empty for images without augmentation.
    """
    digest = hashlib.blake2b(f"{frozen} {view}".encode(), digest_size=16)
    for sample in samples:
        digest.update(digests.of(sample).encode())
    return digest.hexdigest()
