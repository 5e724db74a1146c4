"""The head of a file of weights: its rows are matched to the data's classes by name, never by index alone."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ftexp.errors import ConfigError, listed, nearest
from ftexp.models.blocks import under


def with_new_names(
    theirs: Sequence[str] | None, class_map: Mapping[str, str], ours: Sequence[str], source: str
) -> tuple[str, ...] | None:
    """The classes of a file under the names that the data has for them.

    Args:
        theirs: the classes of the file in the order of its rows; None if the file does not name them.
        class_map: name in the file -> name in the data; for all others the names are the same.
        ours: the classes of the data.
        source: what messages call the file.

    Raises:
        ConfigError: if the file has no class of an old name, the data none of a new one, or two classes of the file
            would have the same name.
    """
    if not class_map:
        return None if theirs is None else tuple(theirs)
    if theirs is None:
        raise ConfigError(f"model.class_map renames classes, and {source} does not name its own.")
    given = {_same(old): new for old, new in class_map.items()}
    for what, wanted, there, where in (
        ("", list(class_map), theirs, source),
        ("to ", list(class_map.values()), ours, "the data"),
    ):
        names_there = set(map(_same, there))
        absent = [name for name in wanted if _same(name) not in names_there]
        if absent:
            raise ConfigError(
                f"model.class_map renames {what}{absent[0]!r}, and {where} has no class of that name."
                f"{nearest(absent[0], there)} It has {listed(there, 8)}."
            )
    renamed = tuple(given.get(_same(name), name) for name in theirs)
    counts = Counter(map(_same, renamed))
    if twice := [name for name in renamed if counts[_same(name)] > 1]:
        both = [old for old, new in zip(theirs, renamed, strict=True) if _same(new) == _same(twice[0])]
        raise ConfigError(
            f"model.class_map gives the name {twice[0]!r} to {' and '.join(map(repr, both))} of {source}. A class of "
            "the data can keep the row of one class of the file."
        )
    return renamed


def rows_by_name(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    heads: tuple[str, ...],
    theirs: Sequence[str] | None,
    ours: int | Sequence[str],
) -> tuple[dict[str, Tensor], str]:
    """The head with the file's rows for classes that file and data share, and its new rows for the others.

    Args:
        module: the network with its new head.
        tensors: the tensors of the file's head, by the network's names.
        heads: paths of the classifying layers; each is a linear layer or a convolution, or ends in one.
        theirs: the classes of the file in the order of its rows; None if the file does not name them.
        ours: the classes of the data in the order of the new rows, or only their number.

    Returns:
        The tensors of the heads that keep rows, and a phrase for the log about all heads.
    """
    named = f"the head ({', '.join(heads)})"
    if not tensors:
        return {}, f"{named} is newly initialised: the file has none"
    if theirs is None or isinstance(ours, int):
        return {}, f"{named} is newly initialised: the file does not name its classes"
    places = {_same(name): place for place, name in enumerate(theirs)}
    known = [name for name in ours if _same(name) in places]
    if not known:
        return {}, f"{named} is newly initialised: the data has none of the file's classes ({listed(theirs, 5)})"
    fitting = [path for path in heads if _fits(module, path, tensors, len(theirs), len(ours))]
    if not fitting:
        return {}, f"{named} is newly initialised: the file's has other layers, or not one row per class"
    rows = [(new, places[_same(name)]) for new, name in enumerate(ours) if _same(name) in places]
    kept: dict[str, Tensor] = {}
    for path in fitting:
        by_class = _class_tensors(module, path, len(ours))
        for name, own in _tensors(module, path).items():
            if name not in tensors:
                continue
            kept[name] = _with_rows(own, tensors[name], rows) if name in by_class else tensors[name]
    return kept, _described(fitting, [path for path in heads if path not in fitting], theirs, ours, known)


def _described(
    kept: Sequence[str], anew: Sequence[str], theirs: Sequence[str], ours: Sequence[str], known: Sequence[str]
) -> str:
    kept_names, our_names = set(known), set(map(_same, ours))
    fresh = [name for name in ours if name not in kept_names]
    gone = [name for name in theirs if _same(name) not in our_names]
    told = f"the head ({', '.join(kept)}) keeps its rows for {listed(known, 5)}, matched by class name"
    if fresh:
        told += f"; new rows for {listed(fresh, 5)}"
    if gone:
        told += f"; left out: {listed(gone, 5)}"
    return told + (f"; {', '.join(anew)} is newly initialised" if anew else "")


def _same(name: str) -> str:
    """The name in one Unicode form, because macOS stores a letter and its accent as two characters."""
    return unicodedata.normalize("NFC", name)


def _tensors(module: nn.Module, path: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if under(name, (path,))}


def _class_tensors(module: nn.Module, path: str, num_classes: int) -> set[str]:
    """Names of the tensors with one row per class: those of the last layer with that many outputs."""
    layers = [
        f"{path}.{name}".rstrip(".")
        for name, layer in module.get_submodule(path).named_modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == num_classes)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == num_classes)
    ]
    return set(_tensors(module, layers[-1])) if layers else set()


def _fits(module: nn.Module, path: str, tensors: Mapping[str, Tensor], num_theirs: int, num_ours: int) -> bool:
    """Whether a head of the file has the same tensors as the network's, apart from the number of classes."""
    by_class = _class_tensors(module, path, num_ours)
    own = {name: tensor for name, tensor in _tensors(module, path).items() if tensor.dim() > 0}  # not counters
    if not by_class or {name for name in tensors if under(name, (path,)) and tensors[name].dim() > 0} != set(own):
        return False
    return all(
        tensors[name].shape[0] == num_theirs and tensors[name][0].numel() == tensor[0].numel()
        if name in by_class
        else tensors[name].shape == tensor.shape
        for name, tensor in own.items()
    )


def _with_rows(own: Tensor, theirs: Tensor, rows: Sequence[tuple[int, int]]) -> Tensor:
    """Copy rows; a 1 x 1 convolution and a linear layer differ only in shape."""
    head = own.detach().clone()
    for new, old in rows:
        head[new] = theirs[old].reshape(own[new].shape)
    return head
