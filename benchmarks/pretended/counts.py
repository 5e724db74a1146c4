"""What the pretended accelerator counts: copies from and to the host, and how often the host waits for the device."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How often each has happened: copies from the host, copies from the device, waits of the host."""

    to_device: int = 0
    to_host: int = 0
    waits: int = 0

    def __sub__(self, earlier: Snapshot) -> Snapshot:
        return Snapshot(self.to_device - earlier.to_device, self.to_host - earlier.to_host, self.waits - earlier.waits)


@dataclass(slots=True)
class Counts:
    """Counts since the last ``clear``.

    Attributes:
        lines: (kind, file:line of ftexp) -> how often; the kinds are those of ``Snapshot``.
    """

    lines: Counter[tuple[str, str]] = field(default_factory=Counter)
    _under_way: list[tuple[Tensor, int]] = field(default_factory=list)  # sources of copies, with their versions

    def now(self) -> Snapshot:
        """The counts up to now."""
        totals: Counter[str] = Counter()
        for (kind, _), number in self.lines.items():
            totals[kind] += number
        return Snapshot(totals["to_device"], totals["to_host"], totals["waits"])

    def sent(self, source: Tensor, *, non_blocking: bool, as_it_is: bool) -> None:
        """A copy from the host; it waits unless it reads pinned memory, in the device's layout and dtype."""
        self._add("to_device")
        if not (non_blocking and as_it_is and is_pinned(source)):
            self.waited()
        elif not source.is_inference():  # those have no version
            self._under_way.append((source, source._version))

    def fetched(self) -> None:
        """A copy to the host, which waits."""
        self._add("to_host")
        self.waited()

    def waited(self) -> None:
        """The host waits for everything that it has asked of the device."""
        self._add("waits")
        done, self._under_way = self._under_way, []
        for source, version in done:
            assert source._version == version, "pinned memory was written to before it had been copied"

    def clear(self) -> None:
        """Begin anew."""
        self.lines.clear()
        self._under_way.clear()

    def _add(self, kind: str) -> None:
        self.lines[kind, _line_of_ftexp()] += 1


def _line_of_ftexp() -> str:
    """The innermost line of ftexp that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        _, found, path = frame.f_code.co_filename.rpartition("/ftexp/")
        if found and "site-packages" not in frame.f_code.co_filename:
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "outside"


COUNTS = Counts()
_pinned: dict[int, StorageWeakRef] = {}


def pin(tensor: Tensor) -> Tensor:
    """Take the memory of a tensor on the CPU for pinned, until it is freed."""
    storage = tensor.untyped_storage()
    _pinned[storage.data_ptr()] = StorageWeakRef(storage)
    return tensor


def is_pinned(tensor: Tensor) -> bool:
    """Whether the memory of a tensor on the CPU is taken for pinned."""
    found = _pinned.get(tensor.untyped_storage().data_ptr())
    return found is not None and not found.expired()
