"""A network as an ordered list of named blocks that ends in a head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ftexp.errors import ConfigError, nearest
from ftexp.preprocessing import Preprocessing

# The reserved name of the last block: the new linear layer, and the pooling and dropout before it.
HEAD = "head"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the backbone.

    Attributes:
        name: the name that settings and tables use.
        paths: paths of its modules, and of parameters that belong to no listed module, in the order of the forward.
    """

    name: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tap:
    """The output of a block, taken where it enters the next one.

    Attributes:
        block: the name of the block.
        entry: path of the module that the output enters.
        argument: its index among that module's flattened arguments.
        over: the dimensions of places, over which it is averaged: (2, 3) of [B, C, H, W], (1, 2) of [B, H, W, C],
            (1,) of tokens [B, N, C], none of [B, C].
        width: number of channels C.
    """

    block: str
    entry: str
    argument: int
    over: tuple[int, ...]
    width: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tap:
        """The tap that ``as_dict`` described."""
        return cls(**{**values, "over": tuple(values["over"])})

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for checkpoints."""
        return {**asdict(self), "over": list(self.over)}

    def pooled(self, args: Any, kwargs: Any) -> Tensor:
        """The average [B, C] over places, from the arguments of a call of the entry."""
        output: Tensor = tree_flatten((args, kwargs))[0][self.argument]
        return output.mean(dim=self.over) if self.over else output


class Network:
    """A classifier whose every tensor belongs to exactly one block or to the head.

    Args:
        module: the network; its head already has one output per class.
        blocks: the blocks of the backbone from the stem on, without the head.
        head: module path of the classifying layer, or paths of several (a distilled transformer has two).
        preprocessing: the transforms that the network expects for its images.
        name: the name of the network in logs and checkpoints.
        num_classes: number of outputs of the head.
        taps: the outputs of blocks that the head takes besides the features before the last layer.

    Attributes:
        keeps_rows: whether the head has rows of a user's file, for classes of the same names.

    Raises:
        ConfigError: if a path does not exist or belongs to two blocks, or if a parameter, a buffer or a module that
            behaves differently in training belongs to neither a block nor the head; the message names it.
    """

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[Block],
        *,
        head: str | tuple[str, ...],
        preprocessing: Preprocessing,
        name: str,
        num_classes: int,
        taps: Sequence[Tap] = (),
    ) -> None:
        self.module = module
        self.blocks = tuple(blocks)
        self.heads = (head,) if isinstance(head, str) else head
        self.preprocessing = preprocessing
        self.name = name
        self.num_classes = num_classes
        self.keeps_rows = False
        self.taps = tuple(taps)
        self._head_paths = self.heads
        # Computed once, because the modes of all blocks are set before every epoch.
        self._module_paths = {name for name, _ in module.named_modules(remove_duplicate=False)} - {""}
        self._check_paths()
        self._head_paths = (*self.heads, *self._head_helpers())
        self._check_partition()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the blocks from the stem on; ``head`` is the last."""
        return (*(block.name for block in self.blocks), HEAD)

    def paths(self, block: str) -> tuple[str, ...]:
        """Paths of the modules and single parameters that make up a block or the head.

        Raises:
            ConfigError: if there is no such block.
        """
        if block == HEAD:
            return self._head_paths
        for candidate in self.blocks:
            if candidate.name == block:
                return candidate.paths
        raise ConfigError(
            f"{self.name} has no block '{block}'.{nearest(block, self.names)} Its blocks: {', '.join(self.names)}."
        )

    def parameters(self, block: str) -> dict[str, nn.Parameter]:
        """The parameters of a block by their full names."""
        return _select(self.module.named_parameters(), self.paths(block))

    def buffers(self, block: str) -> dict[str, Tensor]:
        """The buffers of a block by their full names, including those that are not in the state dict."""
        return _select(self.module.named_buffers(), self.paths(block))

    def modules(self, block: str) -> list[nn.Module]:
        """The outermost modules of a block: ``train()`` or ``eval()`` on each of them reaches all modules below."""
        return [self.module.get_submodule(path) for path in self.paths(block) if path in self._module_paths]

    def block_of(self, tensor_name: str) -> str:
        """Name of the block that a parameter or buffer, given by its full name, belongs to."""
        for block in self.names:
            if under(tensor_name, self.paths(block)):
                return block
        raise KeyError(f"{self.name} has no parameter or buffer '{tensor_name}'")

    def taps_before(self, block: str) -> tuple[Tap, ...]:
        """The taps that are taken before a block, or where it is entered."""
        return tuple(tap for tap in self.taps if self.names.index(tap.block) < self.names.index(block))

    def _check_paths(self) -> None:
        """Check that every path exists, and that no path lies inside or around one of another block or of the head."""
        names = [block.name for block in self.blocks]
        if len(set(names)) < len(names) or HEAD in names:
            raise ConfigError(f"Block names must differ, and '{HEAD}' is reserved: got {', '.join(names)}.")
        known = self._module_paths | {name for name, _ in named_tensors(self.module)}
        claimed = [(HEAD, path) for path in self.heads]
        claimed += [(block.name, path) for block in self.blocks for path in block.paths]
        for index, (block, path) in enumerate(claimed):
            if path not in known:
                raise ConfigError(
                    f"Block '{block}' of {self.name} names '{path}', which the network does not have."
                    f"{nearest(path, known)} See model.blocks and model.head."
                )
            for other, taken in claimed[:index]:
                if under(path, (taken,)) or under(taken, (path,)):
                    raise ConfigError(
                        f"'{path}' of {self.name} is listed in the block '{block}' and, as '{taken}', in '{other}'. "
                        "Every part of a network belongs to one block: correct model.blocks."
                    )

    def _head_helpers(self) -> list[str]:
        """Modules without tensors after the last block, such as dropout and pooling; they belong to the head."""
        inside = tuple(path for block in self.blocks for path in block.paths)
        order = [name for name, _ in self.module.named_modules()]
        last = max((i for i, name in enumerate(order) if under(name, inside)), default=-1)
        return [
            name
            for name in order[last + 1 :]
            if not any(self.module.get_submodule(name).children())
            and not any(named_tensors(self.module.get_submodule(name)))
            and not under(name, self.heads)
        ]

    def _check_partition(self) -> None:
        claimed = tuple(path for block in self.names for path in self.paths(block))
        strays = [f"{kind} {name}" for kind, name in _to_be_claimed(self.module) if not under(name, claimed)]
        if strays:
            more = f" (and {len(strays) - 1} more)" if len(strays) > 1 else ""
            raise ConfigError(
                f"The {strays[0]} of {self.name}{more} belongs to no block. "
                f"Add its path to one of the blocks under model.blocks: {', '.join(self.names[:-1]) or '(none yet)'}."
            )


def behaves_differently_in_training(module: nn.Module) -> bool:
    """Whether ``train()`` and ``eval()`` may differ: dropout, stochastic depth and norm layers of any library."""
    marks = ("Drop", "StochasticDepth", "Norm")
    return any(mark in cls.__name__ for cls in type(module).__mro__ for mark in marks)


def _to_be_claimed(module: nn.Module) -> Iterator[tuple[str, str]]:
    yield from (("parameter", name) for name, _ in module.named_parameters())
    yield from (("buffer", name) for name, _ in module.named_buffers())
    for name, child in module.named_modules():
        if not any(child.children()) and behaves_differently_in_training(child):
            yield f"module {type(child).__name__}", name


def named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by their full names."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def under(name: str, paths: Iterable[str]) -> bool:
    """Whether ``name`` is one of the paths or lies below one; ``layer1`` does not hold ``layer10``."""
    return any(name == path or name.startswith(path + ".") for path in paths)


def _select(named: Iterable[tuple[str, T]], paths: tuple[str, ...]) -> dict[str, T]:
    return {name: value for name, value in named if under(name, paths)}
