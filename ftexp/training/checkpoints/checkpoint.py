"""Checkpoints: plain tensors and plain data, written whole or not at all, and read back only when whole.

``best.pt`` holds the weights that are used. ``last.pt`` holds them as they are, with all that training goes on from;
the one before it is kept as ``previous.pt``, for the day on which ``last.pt`` is damaged.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ftexp.config import Config, as_data
from ftexp.errors import CheckpointError, FormatError
from ftexp.files.file_format import check_format, reading
from ftexp.files.whole_file import replaced_whole
from ftexp.models.blocks import Network
from ftexp.models.eval_caches import load_weights

log = logging.getLogger(__name__)

LAST, PREVIOUS = "last.pt", "previous.pt"
# Of all checkpoints; to be raised when a field is added, goes, or gets another meaning, with a step in _upgrade. Files
# without a number, from before there was one, have format 1. 2: an epoch's sums hold totals and weights of its batches.
# 3: run_id names the run; it is missing from checkpoints of runs that began before, and from their run.json.
# 4: the best epoch keeps the loss and the rank of every validation image.
FORMAT = 4
# Characters of torch's message that are shown.
MAX_REASON = 300


def checkpoint_content(
    network: Network, config: Config, class_to_idx: dict[str, int], **facts: object
) -> dict[str, object]:
    """The weights with all that is needed to use them.

    Args:
        facts: what else there is to know, such as the epoch and its score.
    """
    return {
        "format": FORMAT,
        "model": {name: tensor.detach().cpu() for name, tensor in network.module.state_dict().items()},
        "model_name": network.name,
        "preprocessing": network.preprocessing.as_dict(),
        "class_to_idx": class_to_idx,
        "config": as_data(config),
        **facts,
    }


def write_checkpoint(path: Path, content: dict[str, object]) -> None:
    """Write a file that ``torch.load(weights_only=True)`` reads; an earlier one stays as it is until the end.

    Raises:
        CheckpointError: when it cannot be written, because the disk is full for one, or when the folder of the run is
            no longer there: a new one of its name would hold half of a run.
    """
    try:
        path.parent.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent.parent}, the folder of the run, is no longer there: it was moved or removed while the run"
            " was going on. Where it was moved, go on with resume=ITS NEW PLACE; otherwise begin anew."
        ) from error
    whole = replaced_whole(path, durable=True, only_writer=True)
    try:
        with whole as unfinished, unfinished.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch's writer raises a RuntimeError for what the disk reports
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be written: {reason}. The file of an epoch before, where there is "
            "one, is untouched. Make room, then go on with resume=FOLDER OF THE RUN."
        ) from error


def write_last(folder: Path, content: dict[str, object]) -> None:
    """Write ``last.pt``, and keep the one before as ``previous.pt``.

    Raises:
        CheckpointError: when it cannot be written; both files stay as they were.
    """
    fresh = folder / "fresh.pt"
    write_checkpoint(fresh, content)
    if (folder / LAST).exists():
        os.replace(folder / LAST, folder / PREVIOUS)
    os.replace(fresh, folder / LAST)


def read_last(folder: Path) -> dict[str, Any] | None:
    """The newest whole one of ``last.pt`` and ``previous.pt``; None when the run had not got so far.

    Raises:
        CheckpointError: when there are such files, and all are damaged.
        FormatError: when one was written by a newer version: the one before it would be older work, silently.
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
            log.warning("resume  %s The one before it is used.", error)
            continue
        return content
    if damaged:
        raise CheckpointError("Nothing to go on from:\n  " + "\n  ".join(damaged))
    return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU as data; nothing in it is ever executed.

    Raises:
        CheckpointError: when it is damaged, or holds anything but data.
        FormatError: when it is no checkpoint of ftexp, or one of a newer version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()  # every byte of every tensor against its CRC-32, which torch.load does not do
        if bad is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {bad}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever the damage makes the readers raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged, or no checkpoint of plain data: {reason}.") from error
    if not isinstance(content, dict) or "model" not in content:
        raise FormatError(f"{path} is no checkpoint of ftexp: it holds no weights under the name model.")
    check_format(content.get("format"), FORMAT, path)
    with reading(path):
        _upgrade(content)
    return content


def _upgrade(content: dict[str, Any]) -> None:
    """Bring what an older version wrote into the present format."""
    sums = content.get("phase", {}).get("sums", {})
    if "losses" in sums:  # format 1: the mean of each batch, which counted by its images
        losses, sizes = sums.pop("losses"), sums["sizes"]
        sums["totals"] = [loss * size for loss, size in zip(losses, sizes, strict=True)]
        sums["weights"] = [float(size) for size in sizes]
    for part in ("run", "phase"):
        best = content.get(part, {}).get("best")
        if best and "losses" not in best:  # formats 1 to 3: the mean loss alone
            best["losses"] = torch.full((len(best["labels"]),), best["loss"], dtype=torch.float64)
            best["ranks"] = (best["labels"] != best["predictions"]).long()


def restore_weights(network: Network, weights: Mapping[str, torch.Tensor], file: Path) -> None:
    """Put the weights of a checkpoint of this very network back into it.

    Args:
        file: they were read from.

    Raises:
        CheckpointError: when they do not fit, because another version of timm builds the network, for one.
    """
    try:
        load_weights(network.module, weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise CheckpointError(
            f"The weights in {file} do not fit {network.name} as it is built now: {reason}. Install the versions that "
            "the run's run.json names, or start a new run."
        ) from error
