"""Checkpoints: plain tensors and plain data, which are written atomically and read only if they are complete.

``best.pt`` holds the best weights. ``last.pt`` holds the latest weights, with all that is needed to resume training.
What the first phase does not train is left out of it: the pretrained weights have it, and a digest tells whether they
are the same. The ``last.pt`` before it is kept as ``previous.pt``, in case ``last.pt`` is damaged.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor

from ftexp.config import Config, as_data
from ftexp.errors import CheckpointError, FormatError
from ftexp.files.file_format import check_format, reading
from ftexp.files.whole_file import replaced_whole
from ftexp.models.blocks import Network
from ftexp.models.eval_caches import load_weights
from ftexp.models.parametrized import plain_state
from ftexp.training.checkpoints.snapshot import snapshot

log = logging.getLogger(__name__)

LAST, PREVIOUS = "last.pt", "previous.pt"
# The format of checkpoints. Raise it when a field is added, removed or changes its meaning, and add a step to _upgrade.
# 1: files without a format number. 2: the sums of an epoch hold totals and weights of its batches.
# 3: run_id names the run; checkpoints of runs that began before lack it, and so does their run.json.
# 4: the best epoch keeps the loss and the rank of every validation image.
# 5: the phase has its adapters; the model's weights have them merged.
# 6: the best epoch keeps the confidence of every validation image; older files lack it.
# 7: the taps of the network's head; the heads of older files have none.
# 8: the phase has its plan under a time limit, and the run its seconds so far; older files have no limit.
# 9: last.pt may leave out the frozen weights and has their digest; in older files the weights are complete.
FORMAT = 9
# Length to which torch's message is cut.
MAX_REASON = 300


def checkpoint_content(
    network: Network,
    config: Config,
    class_to_idx: dict[str, int],
    weights: Mapping[str, Tensor] | None = None,
    **facts: object,
) -> dict[str, object]:
    """The content of a checkpoint: the weights, and all that is needed to use them. It is a copy of the present state.

    Args:
        network: the network.
        config: the configuration of the run.
        class_to_idx: the index of each class.
        weights: the weights to save; None: all of them.
        facts: further entries, such as the epoch and its score.
    """
    content: dict[str, object] = {
        "format": FORMAT,
        "model": plain_state(network.module) if weights is None else weights,
        "model_name": network.name,
        "taps": [tap.as_dict() for tap in network.taps],
        "preprocessing": network.preprocessing.as_dict(),
        "class_to_idx": class_to_idx,
        "config": as_data(config),
        **facts,
    }
    return snapshot(content)


def write_checkpoint(path: Path, content: dict[str, object]) -> None:
    """Write a file for ``torch.load(weights_only=True)``; an earlier file is replaced when the new one is complete.

    Raises:
        CheckpointError: if it cannot be written, for example because the disk is full, or if the folder of the run
            has been moved or removed; it is not made again, because it would hold only a part of the run.
    """
    try:
        path.parent.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent.parent}, the folder of the run, no longer exists: it was moved or removed during the run."
            " If it was moved, resume with resume=NEW FOLDER; otherwise start a new run."
        ) from error
    whole, seen = replaced_whole(path, durable=True, only_writer=True), _DiskErrors()
    try:
        with whole as unfinished, unfinished.open("wb") as file:
            torch.save(content, seen.of(file))
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError for errors of the disk
        cause = seen.last or error
        reason = cause.strerror if isinstance(cause, OSError) else str(cause).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be written: {reason}. The file of an earlier epoch, if there is one, is unchanged. Free "
            "some disk space, then resume with resume=FOLDER OF THE RUN."
        ) from error


class _DiskErrors:
    """Passes bytes on to a file, and remembers the error of the disk, of which torch's writer says nothing.

    Attributes:
        last: the last error; None if there was none.
    """

    def __init__(self) -> None:
        self.last: OSError | None = None

    def of(self, file: BinaryIO) -> IO[bytes]:
        """The file, as far as torch needs one."""
        self._file = file
        return cast(IO[bytes], self)

    def write(self, content: bytes) -> int:
        """Write to the file."""
        try:
            return self._file.write(content)
        except OSError as error:
            self.last = error
            raise

    def flush(self) -> None:
        """Write what is in the buffer."""
        self._file.flush()


def write_last(folder: Path, content: dict[str, object]) -> None:
    """Write ``last.pt``, and keep the one before it as ``previous.pt``.

    Raises:
        CheckpointError: if it cannot be written; both files then stay as they were.
    """
    fresh = folder / "fresh.pt"
    write_checkpoint(fresh, content)
    if (folder / LAST).exists():
        os.replace(folder / LAST, folder / PREVIOUS)
    os.replace(fresh, folder / LAST)


def read_last(folder: Path) -> dict[str, Any] | None:
    """Read ``last.pt`` or, if it is damaged, ``previous.pt``.

    Returns:
        The content; None if neither file exists, because the run was stopped before its first save.

    Raises:
        CheckpointError: if all files that exist are damaged.
        FormatError: if a newer version wrote one; using the older file instead would silently lose work.
    """
    damaged = []
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            content = load_checkpoint(path)
        except FormatError:
            raise
        except CheckpointError as error:
            damaged.append(str(error))
            log.warning("resume  %s The checkpoint before it is used.", error)
            continue
        return content
    if damaged:
        raise CheckpointError("The run cannot be resumed, its checkpoints are damaged:\n  " + "\n  ".join(damaged))
    return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it is executed.

    Raises:
        CheckpointError: if it is damaged, or holds other objects than tensors and plain data.
        FormatError: if it is not a checkpoint of ftexp, or is one of a newer version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()  # checks the CRC-32 of every tensor, which torch.load does not do
        if bad is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {bad}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # the readers raise nearly any exception for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged, or is not a checkpoint of plain data: {reason}.") from error
    if not isinstance(content, dict) or "model" not in content:
        raise FormatError(f"{path} is not a checkpoint of ftexp: it has no weights under the key 'model'.")
    check_format(content.get("format"), FORMAT, path)
    with reading(path):
        _upgrade(content)
    return content


def _upgrade(content: dict[str, Any]) -> None:
    """Convert the content of an older format to the present one, in place."""
    content.setdefault("taps", [])  # formats 1 to 6: there were none
    sums = content.get("phase", {}).get("sums", {})
    if "losses" in sums:  # format 1: the mean of each batch, weighted by its images
        losses, sizes = sums.pop("losses"), sums["sizes"]
        sums["totals"] = [loss * size for loss, size in zip(losses, sizes, strict=True)]
        sums["weights"] = [float(size) for size in sizes]
    if "phase" in content:
        content["phase"].setdefault("adapters", {})  # formats 1 to 4: there were none
        content["phase"].setdefault("plan", None)  # formats 1 to 7: there was no time limit
    for part in ("run", "phase"):
        best = content.get(part, {}).get("best")
        if best and "losses" not in best:  # formats 1 to 3 have the mean loss only
            best["losses"] = torch.full((len(best["labels"]),), best["loss"], dtype=torch.float64)
            best["ranks"] = (best["labels"] != best["predictions"]).long()


def restore_weights(network: Network, weights: Mapping[str, torch.Tensor], file: Path) -> None:
    """Load the weights of a checkpoint into the same network.

    Args:
        network: the network.
        weights: the state dict of the checkpoint.
        file: the checkpoint, for the message.

    Raises:
        CheckpointError: if they do not fit, for example because another version of timm builds the network.
    """
    try:
        load_weights(network.module, weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise CheckpointError(
            f"The weights in {file} do not fit {network.name} as it is built now: {reason}. Install the versions in "
            "the run's run.json, or start a new run."
        ) from error
