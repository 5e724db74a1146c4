"""The check that every image can be read, before anything is trained on it."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ftexp.config import DataConfig
from ftexp.data.loading.decoding import decode_opened, open_lazily
from ftexp.data.loading.depth import PLAIN, Depth, warn_of_unused_range
from ftexp.data.loading.images import why_unreadable
from ftexp.data.loading.limits import ImageLimits
from ftexp.data.remote import UNREACHED
from ftexp.data.samples import Sample, SampleTable, sorted_naturally
from ftexp.errors import DataError
from ftexp.machine.cores import available_cores

log = logging.getLogger(__name__)

MAX_NAMED = 20
# The number of images that wait for a thread.
CHUNK = 1024


def screen_images(
    samples: Sequence[Sample], config: DataConfig, folder: Path, workers: int | str = "auto"
) -> SampleTable:
    """Decode every image once, and stop at bad ones or leave them out, as ``data.on_bad_image`` says.

    Bad files are listed in ``folder/bad_images.csv`` (``path,label,split,reason``) in both cases.

    Args:
        samples: the samples to check.
        config: says what to do with bad images, and their limits.
        folder: where ``bad_images.csv`` is written.
        workers: the number of threads; ``auto``: one for each core.

    Returns:
        The samples whose images can be decoded.

    Raises:
        DataError: with ``on_bad_image=error``, naming the bad files.
    """
    bad, depths = dict[int, str](), list[Depth]()
    for number, seen in enumerate(decode_all(samples, workers, ImageLimits.of(config))):
        if isinstance(seen, str):
            bad[number] = seen
        elif seen is not None:
            depths.append(seen)
    report_depth(depths, config.white_level)
    return leave_out(SampleTable.of(samples), bad, config, folder)


def leave_out(samples: SampleTable, reasons: Mapping[int, str], config: DataConfig, folder: Path) -> SampleTable:
    """Remove the bad samples and list them in ``bad_images.csv``, or stop, as ``data.on_bad_image`` says.

    Args:
        samples: all samples.
        reasons: why samples are bad, by their number.
        config: says what to do with bad images.
        folder: where ``bad_images.csv`` is written.

    Raises:
        DataError: with ``on_bad_image=error``, naming the bad files.
    """
    if not reasons:
        return samples
    bad = [(samples[number], reason) for number, reason in reasons.items()]
    table = folder / "bad_images.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split", "reason"))
        writer.writerows((sample.path, sample.label, sample.split or "", reason) for sample, reason in bad)
    if config.on_bad_image == "error":
        raise DataError(_describe(bad, len(samples)))
    _check_losses(samples, bad)
    log.warning("%d of %d images are bad and left out; they are listed in %s.", len(bad), len(samples), table)
    return samples.take([number for number in range(len(samples)) if number not in reasons])


def report_depth(depths: Sequence[Depth], white_level: float | None) -> None:
    """Warn of what the files of a dataset contain and RGB images of 8 bits do not show: more bits, more pages."""
    warn_of_unused_range([depth.peak for depth in depths if depth.peak is not None], white_level)
    stacks = [depth.num_pages for depth in depths if depth.num_pages > 1]
    if stacks:
        log.warning(
            "data    %d file%s several pages or frames (animations), up to %d; only the first of each is used.",
            len(stacks),
            " has" if len(stacks) == 1 else "s have",
            max(stacks),
        )


def _check_losses(samples: Sequence[Sample], bad: Sequence[tuple[Sample, str]]) -> None:
    """Warn of every class that loses more than half of its images through ``data.on_bad_image=skip``.

    Args:
        samples: all samples.
        bad: the samples that are left out, each with the reason.

    Raises:
        DataError: when no sample is left, or when the permission to read a file is missing or its server cannot be
            reached, since such an image need not be bad.
    """
    unreached = [f"{sample.path}: {reason}" for sample, reason in bad if UNREACHED in reason]
    if unreached:
        raise DataError(
            f"{len(unreached)} images could not be downloaded, for example {unreached[0]}. Start again when the server"
            " can be reached: data.on_bad_image=skip leaves out only bad images."
        )
    forbidden = [sample.path for sample, reason in bad if "permission denied" in reason.lower()]
    if forbidden:
        raise DataError(
            f"{len(forbidden)} files cannot be read (permission denied), for example {forbidden[0]}. Make them"
            " readable, or move them away: data.on_bad_image=skip leaves out only bad images."
        )
    if bad and len(bad) == len(samples):
        raise DataError(f"All {len(bad)} images are bad, so none is left. For example, {bad[0][0].path}: {bad[0][1]}.")
    total = Counter(sample.label for sample in samples)
    lost = Counter(sample.label for sample, _ in bad)
    example = {sample.label: f"{sample.path}: {reason}" for sample, reason in reversed(bad)}
    for label in sorted_naturally(label for label in lost if 2 * lost[label] > total[label]):
        if lost[label] == total[label]:
            log.warning(
                "CLASS %r IS LOST: all of its %d images are bad, so this run does not train it. For example, %s.",
                label,
                total[label],
                example[label],
            )
        else:
            log.warning(
                "Class %r loses %d of its %d images. For example, %s.", label, lost[label], total[label], example[label]
            )


def decode_all(samples: Sequence[Sample], workers: int | str, limits: ImageLimits) -> list[Depth | str | None]:
    """Decode every file once: why it is bad, or what it has besides an RGB image of 8 bits; None for nothing."""
    threads = available_cores() if isinstance(workers, str) else max(1, workers)
    seen: list[Depth | str | None] = []
    # Threads are enough, because Pillow's decoders release the GIL.
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(samples), CHUNK):
            seen += pool.map(partial(_decode_one, limits=limits), samples[start : start + CHUNK])
    return seen


def _decode_one(sample: Sample, limits: ImageLimits) -> Depth | str | None:
    if sample.pixels is not None:
        return None
    content = None
    try:
        content = limits.read(sample.origin)
        with open_lazily(content, sample.path, limits) as image:
            depth = decode_opened(image, sample.white_level).depth
            return None if depth == PLAIN else depth
    except Exception as error:  # on damaged bytes, Pillow raises many kinds of exceptions
        return why_unreadable(error, sample.path, content)


def _describe(bad: list[tuple[Sample, str]], num_samples: int) -> str:
    named = "\n".join(f"  {sample.path}: {reason}" for sample, reason in bad[:MAX_NAMED])
    more = f"\n  ... and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
    return (
        f"{len(bad)} of {num_samples} files cannot be read as images:\n{named}{more}\n"
        "Remove or replace them, or leave them out with data.on_bad_image=skip, then run again."
    )
