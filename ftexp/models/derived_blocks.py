"""The blocks of a network that nobody has described: from timm's layer groups, or from the tree of its modules."""

from __future__ import annotations

from torch import nn

from ftexp.errors import ConfigError
from ftexp.models.blocks import HEAD, Block, behaves_differently_in_training, named_tensors, under
from ftexp.models.timm_blocks import derive_blocks

# A part with more than this share of the backbone's parameter tensors is a container of blocks, not a block.
CONTAINER_SHARE = 0.8
# A part with less than this share is no block of its own: it belongs to the one before it; the first ones are the stem.
SMALL_SHARE = 0.03


def head_of(module: nn.Module) -> str:
    """The path of the classifying layer: the last linear layer of the network.

    Raises:
        ConfigError: when it has none.
    """
    linear: list[str] = [path for path, child in module.named_modules() if isinstance(child, nn.Linear)]
    if not linear:
        raise ConfigError(f"{type(module).__name__} has no linear layer: give the path of its last layer as head.")
    return linear[-1]


def blocks_of(module: nn.Module, head: str) -> tuple[Block, ...]:
    """Derive the blocks of a network, from the stem to the one before the head.

    The modules are taken in the order in which they were registered, which is the order of the data in nearly all
    networks; where it is not, the caller has to name the blocks.

    Args:
        module: the network, of any library.
        head: the path of the classifying layer.

    Raises:
        ConfigError: when the network has no parts to tell apart.
    """
    if hasattr(module, "group_matcher"):
        return derive_blocks(module, (head,), type(module).__name__)
    parts = _parts(module, head)
    counts = {path: _num_tensors(module, path) for path in parts}
    total = sum(counts.values())
    if total == 0:
        raise ConfigError(f"{type(module).__name__} has nothing but a head: name its blocks.")
    groups: list[list[str]] = [[]]
    for path in parts:
        if counts[path] >= SMALL_SHARE * total and groups[-1] and not _is_norm(module, path):
            groups.append([])
        groups[-1].append(path)
    return tuple(Block(_name(group, first=index == 0), tuple(group)) for index, group in enumerate(groups))


def _parts(module: nn.Module, head: str) -> list[str]:
    """Paths from which blocks are made: containers are opened until none holds most of the tensors."""
    parts = _children(module, "", head)
    while parts:
        counts = {path: _num_tensors(module, path) for path in parts}
        largest = max(parts, key=counts.__getitem__)
        is_container = counts[largest] > CONTAINER_SHARE * sum(counts.values())
        inside = _children(module.get_submodule(largest), largest, head) if is_container else []
        if len(inside) < 2:
            break
        place = parts.index(largest)
        parts[place : place + 1] = inside
    while parts and not any(under(name, (parts[-1],)) for name, _ in named_tensors(module)):
        parts.pop()  # what follows the last tensor, such as a dropout, is the head's
    return parts


def _children(module: nn.Module, path: str, head: str) -> list[str]:
    """Paths of the loose tensors and the child modules that hold tensors or matter in training, the head's left out."""
    prefix = f"{path}." if path else ""
    tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    found = [prefix + name for name, _ in tensors]
    for name, child in module.named_children():
        full = prefix + name
        if under(full, (head,)):
            continue
        if under(head, (full,)):
            found += _children(child, full, head)
        elif any(True for _ in named_tensors(child)) or any(map(behaves_differently_in_training, child.modules())):
            found.append(full)
    return found


def _num_tensors(module: nn.Module, path: str) -> int:
    return sum(under(name, (path,)) for name, _ in module.named_parameters())


def _is_norm(module: nn.Module, path: str) -> bool:
    """Whether it is a single layer that normalises, which belongs to what comes before it."""
    part = dict(module.named_modules()).get(path)
    return part is not None and not any(part.children()) and behaves_differently_in_training(part)


def _name(paths: list[str], *, first: bool) -> str:
    if first:
        return "stem"
    name = paths[0].replace(".", "_")
    return f"{name}_block" if name in (HEAD, "stem") else name
