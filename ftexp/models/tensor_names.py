"""Renames the tensors of a file to the names that they have in the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import nn

from ftexp.errors import WeightsError
from ftexp.models.weights_file import WeightsFile

# Names that torch's wrappers (torch.compile, FSDP, …) insert into the names of tensors, at any depth.
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
AVERAGED = "ema"


def named_as(module: nn.Module, file: WeightsFile) -> WeightsFile:
    """Remove prefixes that training scripts put before names: ``module.``, ``model.``, ``net.backbone.`` and others.

    First, prefixes that all names share are removed, one after the other. Then, if the network is only one of several
    saved parts, the tensors of the other parts, such as those of a loss, are left out.

    Raises:
        WeightsError: if two networks in the file fit equally well.
    """
    own = set(module.state_dict())
    tensors = {_without_wrappers(name): tensor for name, tensor in file.tensors.items()}
    tops = {name.partition(".")[0] for name in own}
    while (top := _common_top(tensors)) is not None and top not in tops:
        tensors = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
    prefix = _prefix_of_the_network(own, tensors, file.source)
    return file.renamed(
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)},
        left_out=[name for name in tensors if not name.startswith(prefix)],
    )


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _common_top(names: Iterable[str]) -> str | None:
    tops = {name.partition(".")[0] if "." in name else None for name in names}
    return tops.pop() if len(tops) == 1 else None


def _prefix_of_the_network(own: set[str], names: Iterable[str], source: str) -> str:
    """The prefix with which most names of the network are found; empty if they fit without one, or if none fits."""
    fitting: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        ends = (cut for cut in range(len(parts)) if ".".join(parts[cut:]) in own)
        fitting.update("".join(f"{part}." for part in parts[:cut]) for cut in ends)
    most = max(fitting.values(), default=0)
    best = [prefix for prefix, count in fitting.items() if count == most]
    if "" in best or 2 * most < len(own):
        return ""
    averaged = [prefix for prefix in best if AVERAGED in prefix]
    if len(best) > 1 and len(averaged) != 1:
        raise WeightsError(
            f"{source} holds {len(best)} networks that fit: {' and '.join(p.rstrip('.') for p in sorted(best))}. "
            "Save the one that you mean in a file of its own."
        )
    return averaged[0] if len(best) > 1 else best[0]
