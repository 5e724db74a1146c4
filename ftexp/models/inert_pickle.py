"""Reads files of ``torch.save`` without executing anything in them.

``torch.load(weights_only=True)`` refuses a file as soon as it names a class that is not on a short list, and training
scripts save such classes beside their tensors: ``argparse.Namespace``, NumPy scalars, paths, settings. Here every such
class is replaced by one that keeps its state and does nothing. So the tensors can be read, and still no code that the
file names is imported or called.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from ftexp.errors import WeightsError, listed

SAVE_TENSORS = (
    "If you trust it, save its tensors once: torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW)."
)
# No file of weights needs these modules: a pickle that names them is meant to execute something.
SHELLS = ("nt", "os", "posix", "pty", "shutil", "subprocess", "sys")
LOADERS = ("ctypes", "importlib", "marshal", "runpy", "socket", "webbrowser")
CALLS = frozenset(
    f"builtins.{name}" for name in ("__import__", "breakpoint", "compile", "eval", "exec", "input", "open")
)
# The format from before torch 1.6 has three pickles before the object itself: a magic number, a version, the machine.
PICKLES_IN_FRONT = 3


class Inert:
    """Takes the place of an object whose class is not imported.

    Attributes:
        class_name: full name of the class, as in the file.
        state: the state of the object as plain data; None if the file has none.
    """

    class_name = ""
    state: object = None

    def __new__(cls, *_: object, **__: object) -> Any:
        """Accept any arguments, and ignore them."""
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state


class _InertDict(Inert):
    """Takes the place of subclasses of dict, which pickle fills by item assignment."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return OrderedDict()


class _InertList(Inert):
    """Takes the place of subclasses of list, and of deques."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return []


def read_pickled(path: Path) -> object:
    """Read what ``torch.save`` wrote.

    Returns:
        Tensors on the CPU and plain data; every other object is an ``Inert``.

    Raises:
        WeightsError: if the file would run commands, or cannot be read without executing code that it names.
        Exception: of nearly any type, if the file is damaged or has another format.
    """
    try:
        return _load(path, {})
    except pickle.UnpicklingError:
        names = _names_of_classes(path)
    commands = sorted(name for name in names if name.partition(".")[0] in (*SHELLS, *LOADERS) or name in CALLS)
    if commands:
        raise WeightsError(
            f"{path} would call {commands[0]} when it is loaded, which no file of weights needs. "
            "Nothing in it was executed. Delete it, and take the weights from a source that you trust."
        )
    kinds: dict[str, type[Inert]] = dict.fromkeys(names, Inert)
    while True:
        try:
            return _load(path, kinds)
        except pickle.UnpicklingError as error:
            # Only torch's error says that a class is to be filled like a dict or a list.
            filled = re.search(r"Can only (SETITEM|append|extend).* but got <class '(.+)'>", str(error))
            if filled is None or kinds.get(filled[2]) is not Inert:
                raise _unreadable(path, names, str(error)) from error
            kinds[filled[2]] = _InertDict if filled[1] == "SETITEM" else _InertList


def _unreadable(path: Path, names: Iterable[str], message: str) -> WeightsError:
    if "Unsupported operand" in message:
        return WeightsError(
            f"{path} has a pickle of another protocol than torch's, 2, which cannot be read without executing code "
            "that the file names. If you trust it, save it again: "
            "torch.save(torch.load(FILE, weights_only=False), NEW)."
        )
    why = message.partition("WeightsUnpickler error:")[2].strip() or message
    plain = ("builtins.", "collections.", "torch._", "torch.storage", "torch.Size", "torch.device")
    objects = sorted(name for name in names if not name.startswith(plain) and not name.endswith("Storage"))
    told = f"objects of {listed(objects, 5)}" if objects else "more than tensors and plain data"
    return WeightsError(
        f"{path} cannot be read without executing code that it names: it holds {told} "
        f"({why.splitlines()[0].rstrip('.')}), probably a whole pickled network. {SAVE_TENSORS}"
    )


def _load(path: Path, kinds: Mapping[str, type[Inert]]) -> object:
    stand_ins = [(_named(kind, name), name) for name, kind in kinds.items()]
    with (
        path.open("rb") as file,  # given a path, torch would go by the file's name
        torch.serialization.safe_globals(stand_ins),  # type: ignore[arg-type]
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # about the version of the pickle
        return torch.load(file, map_location="cpu", weights_only=True)


def _named(kind: type[Inert], name: str) -> type[Inert]:
    module, _, short = name.rpartition(".")
    return type(short, (kind,), {"__module__": module, "class_name": name})


def _names_of_classes(path: Path) -> set[str]:
    """Full names of the classes and functions in a file's pickle, which is disassembled and not executed."""
    with _pickle_stream(path) as stream:
        pairs = [str(arg).split(" ", 1) for code, arg, _ in pickletools.genops(stream) if code.name == "GLOBAL"]
    return {_as_today(module, name) for module, name in pairs}


def _as_today(module: str, name: str) -> str:
    """The Python 3 name of a class; the pickles of ``torch.save`` have the Python 2 name."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


@contextmanager
def _pickle_stream(path: Path) -> Iterator[IO[bytes]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(name) as stream:
                yield stream
        return
    with path.open("rb") as stream:
        for _ in range(PICKLES_IN_FRONT):
            for _ in pickletools.genops(stream):
                pass
        yield stream
