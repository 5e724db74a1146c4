"""Loads tensors into a network: checks that they fit, and logs what was loaded and what was left out."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ftexp.errors import WeightsError, listed
from ftexp.models.blocks import under
from ftexp.models.file_kinds import check_kind
from ftexp.models.head_rows import rows_by_name
from ftexp.models.tensor_names import named_as
from ftexp.models.weights import Weights
from ftexp.models.weights_file import WeightsFile

logger = logging.getLogger(__name__)

# BatchNorm's counter, which is missing in files from before torch 0.4.1.
COUNTER = ".num_batches_tracked"
# Patterns of tensor names -> the library that they come from, and what to do: the network may be right, its names not.
FOREIGN_NAMES = {
    r"\.lora_[AB]\.": "These are adapters (LoRA): merge them into their network, and save its state_dict.",
    r"(^|\.)(embeddings\.(patch_embeddings|position_embeddings|cls_token)|encoder\.(layer|stages)\.\d|embedder\.)": (
        "These are the layer names of Hugging Face's transformers; timm and torchvision use others. Take the weights "
        "of the same network that timm or torchvision publish."
    ),
    r"^(encoder\.layers\.encoder_layer_\d|features\.\d+\.)": (
        "These are torchvision's layer names: choose torchvision's model (model=vit_b_16, model=convnext_tiny, …)."
    ),
    r"^(blocks\.\d+\.(attn\.qkv|\d+\.conv)|stages\.\d+\.blocks\.)": (
        "These are timm's layer names: choose timm's model with model=timm model.name=NAME."
    ),
}


def load_weights(module: nn.Module, file: WeightsFile, heads: tuple[str, ...], classes: int | Sequence[str]) -> bool:
    """Load the backbone by name, and the head's rows for classes that the data has too; log what was loaded.

    Args:
        module: the network with its new head.
        file: the tensors under the network's names.
        heads: paths of the classifying layers, the only ones that may be missing or have another shape.
        classes: the classes of the data in the order of the new head's rows; only their number: no row is kept.

    Returns:
        Whether the head keeps rows.

    Raises:
        WeightsError: if anything else is missing, unexpected or of another shape, or a tensor has NaN or infinity;
            the message names it.
    """
    file = named_as(module, file)
    own = module.state_dict()
    head = {name: tensor for name, tensor in file.tensors.items() if under(name, heads)}
    backbone = {name: tensor for name, tensor in file.tensors.items() if name not in head}
    foreign = _of_other_parts(module, backbone, heads)
    _check_fit(module, backbone, heads, foreign, file)
    rows, told = rows_by_name(module, head, heads, file.classes, classes)
    kept = {name: tensor for name, tensor in backbone.items() if name in own} | rows
    check_values(kept, own, file.source)
    module.load_state_dict(kept, strict=False)
    _say(file, len(kept), told, (*file.left_out, *foreign))
    return bool(rows)


def _check_fit(
    module: nn.Module,
    backbone: Mapping[str, Tensor],
    heads: tuple[str, ...],
    foreign: Sequence[str],
    file: WeightsFile,
) -> None:
    own = module.state_dict()
    made_for = f" The file names {file.made_for}." if file.made_for else ""
    advice = f"Choose the model that these weights were made for.{made_for}"
    wrong = [name for name, tensor in backbone.items() if name in own and own[name].shape != tensor.shape]
    if wrong:
        raise WeightsError(
            f"{file.source} does not fit the network: {listed(wrong, 5)} have another shape. For example, {wrong[0]} "
            f"is {tuple(backbone[wrong[0]].shape)} in the file and {tuple(own[wrong[0]].shape)} in the network. "
            f"{advice}"
        )
    computed = {name for name, _ in module.named_buffers()}  # older files hold some that the network now computes
    missing = [n for n in own if n not in backbone and not under(n, heads) and not n.endswith(COUNTER)]
    unexpected = [n for n in backbone if n not in own and n not in computed and not n.endswith(COUNTER)]
    if missing or not set(unexpected) <= set(foreign):
        raise WeightsError(
            f"{file.source} does not fit the network.\n"
            f"    missing in the file: {listed(missing, 5) or 'nothing'}\n"
            f"    unexpected in the file: {listed(unexpected, 5) or 'nothing'}\n"
            f"Only tensors of the head may differ. {_whose_names(unexpected) or advice}"
        )


def _whose_names(unexpected: Sequence[str]) -> str | None:
    """Which library uses these names, and what to do; None if that is not known."""
    return next((what for names, what in FOREIGN_NAMES.items() if any(re.search(names, n) for n in unexpected)), None)


def _of_other_parts(module: nn.Module, names: Mapping[str, Tensor], heads: tuple[str, ...]) -> tuple[str, ...]:
    """Tensors of parts that the network does not have, such as a decoder or a loss; not of more of its own blocks."""
    own = {name.partition(".")[0] for name in module.state_dict() if not under(name, heads)}
    return tuple(name for name in names if name.partition(".")[0] not in own)


def check_values(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that are quantised, sparse, or not finite.

    Args:
        tensors: the tensors to be loaded, by name.
        own: the network's tensors, whose dtypes they will take (1e300 is infinite in float32). An infinite value is
            allowed where the network's own value is infinite too, as in a mask.
        source: the name of the file in messages.

    Raises:
        WeightsError: if there is such a tensor; the message names it.
    """
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.is_quantized or tensor.layout is not torch.strided:
            raise WeightsError(
                f"{source}: {name} is not a plain tensor of numbers (it is quantised, sparse, or was saved without its "
                "values). Save the network's weights as float32."
            )
        if not tensor.is_floating_point() and own[name].is_floating_point():
            raise WeightsError(
                f"{source}: {name} has the dtype {str(tensor.dtype).removeprefix('torch.')}, and the network's is a "
                "float: the file is quantised. Save the network's weights as float32."
            )
        if not tensor.is_floating_point() or bool(torch.isfinite(converted := tensor.to(own[name].dtype)).all()):
            continue
        if not bool(torch.isfinite(own[name]).all()):
            continue
        kind = "NaN" if bool(torch.isnan(converted).any()) else "infinity"
        count = int((~torch.isfinite(converted)).sum())
        raise WeightsError(
            f"{source}: {name} has {kind} ({count:,} of {tensor.numel():,} numbers are not finite). The training of "
            "these weights diverged, or the file is damaged. Take an earlier checkpoint."
        )


def load_in_order(module: nn.Module, file: WeightsFile, heads: tuple[str, ...]) -> None:
    """Load the backbone of the same network whose tensors have other names: the n-th tensor goes into the n-th.

    Args:
        module: the network.
        file: the tensors in the order of the network's.
        heads: paths of the classifying layers, which are not loaded.

    Raises:
        WeightsError: if the numbers of tensors differ, if two tensors of the backbone differ in shape, or if one has
            NaN or infinity.
    """
    own, source = module.state_dict(), file.source
    if len(own) != len(file.tensors):
        count = len(file.tensors)
        raise WeightsError(f"{source} has {count} tensors, the network {len(own)}: they do not belong together.")
    renamed = {}
    for (here, mine), (there, theirs) in zip(own.items(), file.tensors.items(), strict=True):
        if under(here, heads):
            continue
        if mine.shape != theirs.shape:
            raise WeightsError(
                f"{source} does not fit the network: {there} has the shape {tuple(theirs.shape)}, and the network's "
                f"{here} {tuple(mine.shape)}."
            )
        renamed[here] = theirs
    check_values(renamed, own, source)
    module.load_state_dict(renamed, strict=False)


@contextmanager
def reading(weights: Weights | None) -> Iterator[None]:
    """Turn what a library raises while it reads its own published weights into one message.

    Raises:
        WeightsError: if the file is damaged, or cannot be used at this image size.
    """
    if weights is None or weights.origin != "library":
        yield
        return
    if weights.path.suffix != ".npz":  # some of timm's weights are Google's own files in this format
        check_kind(weights.path)
    try:
        yield
    except (RuntimeError, EOFError, OSError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0]
        if mismatches := [line.strip() for line in lines if "size mismatch" in line]:
            raise WeightsError(
                f"{weights.label} cannot be used at this image size: the library does not resample these weights "
                f"({mismatches[0]}). Leave model.image_size and data.image_size at null, or take another model."
            ) from error
        raise WeightsError(
            f"{weights.path}, the file of {weights.label}, cannot be loaded ({reason}). "
            "Delete it: the next run downloads it again."
        ) from error


def say_published(module: nn.Module, weights: Weights, heads: tuple[str, ...]) -> None:
    """Log which published weights the network has, and where they come from.

    Args:
        module: the network with the weights in it.
        weights: where they are.
        heads: paths of the classifying layers.

    Raises:
        WeightsError: if a tensor has NaN or infinity.
    """
    parameters = dict(module.named_parameters())
    check_values(parameters, {name: torch.zeros((), dtype=p.dtype) for name, p in parameters.items()}, weights.label)
    logger.info(
        "weights %s, from %s: loaded; the head (%s) is newly initialised.",
        weights.label,
        weights.path,
        ", ".join(heads),
    )


def _say(file: WeightsFile, count: int, head: str, left_out: Sequence[str]) -> None:
    of = f" of its {file.key}" if file.key else ""
    told = f"{file.source}: {count} tensors{of} loaded; {head}"
    if file.preprocessing is not None:
        told += "; images get the transforms that the file names"
    if file.passed_over:
        told += f"; not used: {', '.join(file.passed_over)}"
    if left_out:
        told += f"; left out: {len(left_out)} tensors of other parts, such as {left_out[0]}"
    logger.info("weights %s.", told)
