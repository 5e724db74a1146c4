"""The blocks of a timm model, from the layer groups that timm defines for layer-wise learning rates."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from timm.models._manipulate import group_with_matcher
from torch import nn

from ftexp.errors import ConfigError
from ftexp.models.blocks import HEAD, Block, behaves_differently_in_training, under

# No tensor has this name: it shows into which group timm puts tensors that match none of its patterns.
_LEFT_OVER = "(left over)"


def derive_blocks(module: nn.Module, heads: tuple[str, ...], name: str) -> tuple[Block, ...]:
    """Blocks from the stem to the head, at timm's coarse granularity: stages, or the layers of a plain transformer.

    Tensors besides the head's that match none of timm's patterns (a final norm, a convolution before the pooling)
    belong to the last block.

    Args:
        module: a timm model.
        heads: paths of its classifying layers.
        name: the name of the model, for the message.

    Raises:
        ConfigError: if timm defines no layer groups for this model, and it is not a sequence of parts either.
    """
    matcher = _matcher(module, heads, name)
    named = (*module.named_parameters(), *module.named_buffers())
    names = [n for n, _ in named if not under(n, heads)]
    found: dict[str, int] = group_with_matcher(((n, None) for n in (*names, _LEFT_OVER)), matcher, reverse=True)
    last = max(0, found.pop(_LEFT_OVER) - 1)
    groups = {n: min(group, last) for n, group in found.items()}
    paths: dict[int, list[str]] = defaultdict(list)
    waiting: list[str] = []
    current: int | None = None
    for path, group in _roots(module, "", groups, heads):
        if group is None:
            waiting.append(path)
            continue
        # Modules without tensors belong to the block of the module registered before them (pos_drop to that of the
        # patch embedding); those after the last tensor of the backbone belong to the head.
        paths[group if current is None else current] += waiting
        paths[group].append(path)
        waiting, current = [], group
    return tuple(Block(label, tuple(paths[group])) for label, group in _labels(paths, groups))


def _matcher(module: nn.Module, heads: tuple[str, ...], name: str) -> Any:
    group_matcher = getattr(module, "group_matcher", None)
    if group_matcher is None:
        return _largest_sequence(module, heads, name)
    try:
        return group_matcher(coarse=True)
    except AssertionError:  # some models have fine groups only
        return group_matcher(coarse=False)


def _largest_sequence(module: nn.Module, heads: tuple[str, ...], name: str) -> dict[str, Any]:
    """A matcher for a model without one: the blocks are the parts of its largest sequence, the stem is all before."""
    sequences = {
        path: sum(parameter.numel() for parameter in child.parameters())
        for path, child in module.named_children()
        if isinstance(child, (nn.Sequential, nn.ModuleList)) and len(child) > 1 and not under(path, heads)
    }
    if not sequences:
        raise ConfigError(f"timm defines no layer groups for {name}: list its blocks in model.blocks, stem first.")
    largest = max(sequences, key=sequences.__getitem__)
    children = [path for path, _ in module.named_children()]
    stem = [*module._parameters, *module._buffers, *children[: children.index(largest)]]
    return {
        "stem": rf"^(?:{'|'.join(map(re.escape, stem))})(?:\.|$)",
        "blocks": rf"^{re.escape(largest)}\.(\d+)",
    }


def _roots(
    module: nn.Module, path: str, groups: dict[str, int], heads: tuple[str, ...]
) -> Iterator[tuple[str, int | None]]:
    """The outermost modules and single tensors that lie entirely in one group, in the order of registration."""
    for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        full = f"{path}.{name}" if path else name
        if full in groups:
            yield full, groups[full]
    for name, child in module.named_children():
        full = f"{path}.{name}" if path else name
        below = {groups[n] for n in groups if under(n, (full,))}
        holds_head = any(under(head, (full,)) for head in heads)
        if under(full, heads):
            continue
        if len(below) == 1 and not holds_head:
            yield full, below.pop()
        elif below or holds_head:
            yield from _roots(child, full, groups, heads)
        elif any(behaves_differently_in_training(part) for part in child.modules()):
            yield full, None


def _labels(paths: dict[int, list[str]], groups: dict[str, int]) -> Iterator[tuple[str, int]]:
    """A short name for each group, from the path with most tensors: ``blocks.3`` gives ``blocks3``.

    A group that timm calls ``head`` or ``stem`` although it is neither becomes ``head_block`` or ``stem_block``.
    """
    mains = {
        group: max(paths[group], key=lambda path: sum(under(n, (path,)) for n in groups)) for group in sorted(paths)
    }
    full = {group: re.sub(r"\.(\d+)", r"\1", main) for group, main in mains.items()}
    short = {group: label.rpartition(".")[2] for group, label in full.items()}
    for group in mains:
        unique = list(short.values()).count(short[group]) == 1 and short[group] not in (HEAD, "stem")
        label = short[group] if unique else full[group].replace(".", "_")
        label = f"{label}_block" if label in (HEAD, "stem") else label
        yield ("stem" if group == min(mains) else label), group
