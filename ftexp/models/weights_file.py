"""Reads a file of weights: the tensors of a network, and what the file says about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from ftexp.errors import WeightsError
from ftexp.models.file_kinds import INDEX, check_kind, is_safetensors
from ftexp.models.inert_pickle import SAVE_TENSORS, Inert, read_pickled
from ftexp.preprocessing import Preprocessing

# Keys under which checkpoints hold the tensors of a network; averaged weights take precedence, as in timm.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")
# Keys for the classes in the order of the head's rows, and for the name of the architecture.
CLASS_NUMBERS = ("class_to_idx", "class_to_index", "label2id")
CLASS_LISTS = ("classes", "class_names", "label_names", "categories", "names", "id2label", "idx_to_class")
MODEL_NAMES = ("model_name", "arch", "architecture", "model", "backbone", "model_type")
SETTINGS = ("hyper_parameters", "args", "config")


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """The tensors of one network, read from a file.

    Attributes:
        source: the name of the file in messages.
        tensors: the tensors by their names in the file; after ``renamed``, by their names in the network.
        left_out: names of tensors in the file that belong to no part of the network.
        key: the key under which the file has the tensors; empty if they are at its top level.
        passed_over: keys of other networks in the file, which are not used.
        classes: the classes in the order of the head's rows; None if the file does not name them.
        made_for: the name of the architecture; None if the file does not name it.
        preprocessing: the transforms that the weights were trained with, which only ftexp's checkpoints have.
        in_order: whether the tensors belong to those of the network by their order, not by their names.
        antialias: whether the positions of a ViT are averaged over their neighbours where they are resampled to fewer,
            as timm does.
    """

    source: str
    tensors: dict[str, Tensor]
    left_out: tuple[str, ...] = ()
    key: str = ""
    passed_over: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    made_for: str | None = None
    preprocessing: Preprocessing | None = None
    in_order: bool = False
    antialias: bool = True

    def renamed(self, tensors: Mapping[str, Tensor], left_out: Sequence[str] = ()) -> WeightsFile:
        """A copy with these tensors instead, and with more names in ``left_out``."""
        return replace(self, tensors=dict(tensors), left_out=(*self.left_out, *left_out))


def why_incomplete(path: Path, content: Mapping[str, object]) -> str | None:
    """Why a file has no whole network: ``last.pt`` of a run in its first phase has only what this phase trains."""
    if content.get("frozen") is None or "phase" not in content:
        return None
    return f"{path} has only the weights that its run of ftexp has trained so far. Give best.pt beside it."


def read_weights(path: Path, source: str | None = None) -> WeightsFile:
    """Read a checkpoint or plain weights in torch's or safetensors' format, whatever the name of the file.

    Nothing in the file is executed.

    Args:
        path: the file, or the index of weights that are split into several files (``model.safetensors.index.json``).
        source: the name of the file in messages; None: its path.

    Raises:
        WeightsError: if the file cannot be read, holds no weights, or holds a whole pickled network.
    """
    try:
        if path.name.endswith(INDEX):
            content: object = _read_shards(path)
        else:
            content = _read(path)
    except WeightsError:
        raise
    except Exception as error:  # torch's reader raises nearly any exception for a damaged file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path} cannot be read as weights: {reason.rstrip('.')}. The file is damaged, or was not written by "
            "torch.save(model.state_dict(), FILE) or by safetensors."
        ) from error
    if isinstance(content, Mapping) and (why := why_incomplete(path, content)) is not None:
        raise WeightsError(why)
    key, found, passed_over = _network(path, content)
    facts = [*_facts(content), *_facts(_description(path))]
    return WeightsFile(
        source=source or str(path),
        tensors={str(name): tensor for name, tensor in found.items() if isinstance(tensor, Tensor)},
        key=key,
        passed_over=passed_over,
        classes=next(filter(None, map(_class_names, facts)), None),
        made_for=next(filter(None, map(_model_name, facts)), None),
        preprocessing=_preprocessing(path, facts),
    )


def _read(path: Path) -> object:
    check_kind(path)
    return load_file(path) if is_safetensors(path) else read_pickled(path)


def _read_shards(index: Path) -> dict[str, object]:
    """The tensors of all files that an index of the Hugging Face hub lists."""
    files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    tensors: dict[str, object] = {}
    for name in files:
        if Path(name).name != name:
            raise WeightsError(f"{index} names the file {name}, which is not in its own folder.")
        part = _read(index.parent / name)
        tensors |= part if isinstance(part, Mapping) else {}
    return tensors


def _network(path: Path, content: object) -> tuple[str, Mapping[Any, object], tuple[str, ...]]:
    """The key and the tensors of the network to load, and the keys of others in the file.

    Raises:
        WeightsError: if there is no network, or there are several without a known key.
    """
    _refuse_pickled_network(path, content)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds no named tensors, but a {type(content).__name__}; {_how_to_save()}")
    found = dict(_networks(content))
    for key in (*AVERAGED, *PLAIN):
        if key in found:
            return key, found[key], tuple(other for other in found if other != key)
    if _has_tensors(content):
        return "", content, tuple(found)
    if len(found) == 1:
        return (*found.popitem(), ())
    if found:
        raise WeightsError(f"{path} holds several networks ({', '.join(found)}); save the one that you mean alone.")
    for key in (*AVERAGED, *PLAIN):
        _refuse_pickled_network(path, content.get(key))
    keys = ", ".join(str(key) for key in list(content)[:8]) or "nothing"
    raise WeightsError(f"{path} holds no named tensors, but {keys}; {_how_to_save()}")


def _networks(content: Mapping[Any, object]) -> Iterator[tuple[str, Mapping[Any, object]]]:
    """Each part of a checkpoint that holds named tensors, directly or one level deeper."""
    for key, value in content.items():
        if not isinstance(value, Mapping):
            continue
        inner = next((value[name] for name in PLAIN if isinstance(value.get(name), Mapping)), None)
        if _has_tensors(value):
            yield str(key), value
        elif isinstance(inner, Mapping) and _has_tensors(inner):
            yield str(key), inner


def _has_tensors(content: Mapping[Any, object]) -> bool:
    return any(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())


def _refuse_pickled_network(path: Path, content: object) -> None:
    if isinstance(content, Inert):
        raise WeightsError(
            f"{path} holds a whole pickled network ({content.class_name}), not its tensors. Loading it would execute "
            f"code that the file names. {SAVE_TENSORS}"
        )


def _how_to_save() -> str:
    return "write the file with torch.save(model.state_dict(), FILE), or give a checkpoint of ftexp."


def _description(path: Path) -> object:
    """The content of ``config.json``, which Hugging Face's libraries write beside weights; None if there is none."""
    try:
        return json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _facts(content: object) -> Iterator[Mapping[Any, object]]:
    """The parts of a file that may describe its weights: its top level, and the settings of its training."""
    if not isinstance(content, Mapping):
        return
    yield content
    for key in SETTINGS:
        value = content.get(key)
        inner = value.state if isinstance(value, Inert) else value
        if isinstance(inner, Mapping):
            yield inner


def _class_names(facts: Mapping[Any, object]) -> tuple[str, ...] | None:
    """The classes in the order of their indices, which must be 0, 1, 2, …"""
    for key in CLASS_NUMBERS:
        names = _in_order(facts.get(key), number=lambda item: item[1], name=lambda item: item[0])
        if names:
            return names
    for key in CLASS_LISTS:
        value = facts.get(key)
        if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(n, str) for n in value):
            names = tuple(value)
        else:
            names = _in_order(value, number=lambda item: item[0], name=lambda item: item[1])
        if names and len(set(names)) == len(names):
            return names
    return None


def _in_order(
    value: object, number: Callable[[tuple[Any, Any]], object], name: Callable[[tuple[Any, Any]], object]
) -> tuple[str, ...] | None:
    if not isinstance(value, Mapping):
        return None
    numbered = {str(number(item)): name(item) for item in value.items()}
    names = [numbered.get(str(place)) for place in range(len(value))]
    return tuple(str(name) for name in names) if names and all(isinstance(name, str) for name in names) else None


def _model_name(facts: Mapping[Any, object]) -> str | None:
    named = (facts.get(key) for key in MODEL_NAMES)
    return next((value for value in named if isinstance(value, str) and value), None)


def _preprocessing(path: Path, facts: Sequence[Mapping[Any, object]]) -> Preprocessing | None:
    values = facts[0].get("preprocessing") if facts else None
    if not isinstance(values, Mapping) or not {"image_size", "mean", "std"} <= values.keys():
        return None
    try:
        return Preprocessing.from_dict(values)
    except TypeError as error:
        raise WeightsError(
            f"{path} describes transforms that this version of ftexp does not know ({error}). Update ftexp."
        ) from error
