"""The audit, from the samples to its result, in the order of events."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from ftexp.audit.aligner import Effort
from ftexp.audit.blank import find_blank_images
from ftexp.audit.cache import FingerprintCache
from ftexp.audit.duplicates import Copies, find_copies
from ftexp.audit.edited_copies import OnScene
from ftexp.audit.findings import KINDS, Finding, remedy_of, write_leaks
from ftexp.audit.fingerprint_table import Fingerprints, FingerprintsByPath
from ftexp.audit.fingerprints import FeatureExtractor, Seen, look_at_images
from ftexp.audit.groups import write_groups
from ftexp.audit.picture import draw_worst_pairs
from ftexp.audit.shortcuts import find_shortcuts
from ftexp.audit.split_crossings import find_future_in_training, find_shared_groups
from ftexp.audit.within_splits import describe_repeats, find_repeats, find_two_labels
from ftexp.config import AuditConfig, DataConfig
from ftexp.data.digests import ContentDigests
from ftexp.data.loading.limits import ImageLimits
from ftexp.data.loading.screening import leave_out, report_depth
from ftexp.data.samples import Sample, SampleTable
from ftexp.errors import LeakError
from ftexp.files.run_files import LEAKS_PICTURE
from ftexp.machine.cores import available_cores

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit.

    Attributes:
        findings: everything that was found.
        seconds: the duration of the audit.
    """

    findings: list[Finding]
    seconds: float

    @property
    def failures(self) -> list[Finding]:
        """The findings that must stop the run."""
        return [finding for finding in self.findings if finding.severity == "fail"]


def audit_splits(
    samples: Sequence[Sample],
    config: AuditConfig,
    folder: Path,
    look: FingerprintsByPath,
    until: float = math.inf,
    *,
    tied: bool = False,
    copies: Copies | None = None,
) -> Audit:
    """Search for leaks between the splits; write ``leaks.csv``, and ``leaks.png`` if findings have pairs of images.

    Args:
        samples: all samples, each with its split.
        config: whether leaks stop the run.
        folder: where the files are written.
        look: the fingerprints of the samples, from ``screen_and_look``.
        until: by ``time.monotonic``, when no further pictures are aligned.
        tied: whether ``data.tie_duplicates`` has put copies into one split, so that it is no advice any more.
        copies: those among the samples, where they have been searched for already.

    Raises:
        LeakError: when something of severity ``fail`` was found and ``audit.on_leak=fail``.
    """
    started = time.perf_counter()
    prints = look.of(samples)
    with closing(FingerprintCache(config.cache)) as cache:
        findings, repeats = find_all(samples, prints, Effort(cache, until), config.on_scene, copies)
        if config.write_groups is not None:
            without_limit = Effort(cache) if config.aligns else None
            write_groups(Path(config.write_groups).expanduser(), samples, prints, without_limit)
    if config.on_leak == "warn":
        findings = [replace(finding, severity="warn") for finding in findings]
    write_leaks(folder / "leaks.csv", findings)
    draw_worst_pairs(folder / LEAKS_PICTURE, findings, samples)
    audit = Audit(findings, time.perf_counter() - started + look.seconds)
    log.info("audit   %d images in %.1f s: %s", len(samples), audit.seconds, _summary(findings))
    for line in [*_report(findings, tied), *(f"  warn  {line}" for line in repeats)]:
        log.warning(line)
    if audit.failures:
        raise LeakError(_refusal(audit.failures, folder / "leaks.csv", tied))
    return audit


def find_all(
    samples: Sequence[Sample],
    prints: Fingerprints,
    effort: Effort,
    on_scene: OnScene,
    copies: Copies | None = None,
) -> tuple[list[Finding], list[str]]:
    """Find everything that an audit can find, and describe what repeats within a split.

    Args:
        samples: all samples, each with its split.
        prints: their fingerprints, in the same order.
        effort: how much may be spent on aligning pictures; its cache also keeps how well metadata predict the labels.
        on_scene: whether scenes are listed, and with which severity.
        copies: those among the samples; None: they are searched for.
    """
    copies = copies or find_copies(samples, prints, effort, on_scene)
    for level, line in copies.notes:
        log.log(level, line)
    findings = [
        *copies.findings,
        *find_shared_groups(samples),
        *find_future_in_training(samples),
        *find_two_labels(samples, prints, [*copies.across, *copies.within]),
        *find_repeats(samples, prints, copies.within),
        *find_blank_images(samples, prints),
        *find_shortcuts(samples, prints, effort.cache),
    ]
    return findings, describe_repeats(samples, prints, copies.within)


def look(
    samples: Sequence[Sample],
    data: DataConfig,
    config: AuditConfig,
    extractor: FeatureExtractor | None,
    workers: int | str = "auto",
    digests: ContentDigests | None = None,
) -> Seen:
    """The fingerprint of every sample, or the reason why its image is bad; the arguments are ``screen_and_look``'s."""
    threads = available_cores() if isinstance(workers, str) else max(1, workers)
    with closing(FingerprintCache(config.cache)) as cache:
        return look_at_images(samples, extractor, cache, threads, ImageLimits.of(data), digests)


def screen_and_look(
    samples: Sequence[Sample],
    data: DataConfig,
    config: AuditConfig,
    folder: Path,
    extractor: FeatureExtractor | None,
    workers: int | str = "auto",
    digests: ContentDigests | None = None,
) -> tuple[SampleTable, FingerprintsByPath]:
    """Find the bad images, as ``screen_images`` does, and compute the fingerprints of the others, in one decoding.

    Images whose fingerprints are in the cache, by their content, are not decoded.

    Args:
        samples: all samples.
        data: says what to do with bad images, and their limits.
        config: names the cache.
        folder: where ``bad_images.csv`` is written.
        extractor: computes features for finding near duplicates; None: only perceptual hashes are used.
        workers: the number of threads; ``auto``: one for each core.
        digests: remembers the digest of every file.

    Returns:
        The samples whose images can be decoded, and the fingerprints.

    Raises:
        DataError: with ``data.on_bad_image=error``, naming the bad files.
    """
    started = time.perf_counter()
    seen = look(samples, data, config, extractor, workers, digests)
    report_depth(seen.depths, data.white_level)
    good = leave_out(SampleTable.of(samples), seen.bad, data, folder)
    return good, FingerprintsByPath.of_samples(good, seen.prints, time.perf_counter() - started)


def _summary(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.kind for finding in findings)
    return ", ".join(f"{counts[kind]} x {meaning}" for kind, (meaning, _) in KINDS.items() if counts[kind]) or "clean"


def _report(findings: Sequence[Finding], tied: bool) -> list[str]:
    """One line for each kind with its first example; for shortcuts, one line for each field."""
    lines = []
    for kind, (meaning, _) in KINDS.items():
        found = [finding for finding in findings if finding.kind == kind]
        if kind == "shortcut":
            lines += [
                f"  {f.severity}  the label can be predicted from the {f.path_a} alone: balanced accuracy"
                f" {f.score:.2f}, {f.path_b}. Make sure that new images differ in it in the same way, or make it equal"
                " for all classes."
                for f in found
            ]
        elif found and kind not in ("repeat", "near_repeat"):  # those have a line for each split
            first = found[0]
            other = f" and {first.path_b} ({first.split_b})" if first.path_b else ""
            lines.append(
                f"  {first.severity}  {meaning}: {len(found)}, for example {first.path_a} ({first.split_a}){other}."
                f" To fix: {remedy_of(kind, tied=tied)}"
            )
    return lines


def _refusal(failures: Sequence[Finding], table: Path, tied: bool) -> str:
    meanings: dict[str, list[str]] = {}
    for kind in dict.fromkeys(failure.kind for failure in failures):
        meanings.setdefault(remedy_of(kind, tied=tied), []).append(KINDS[kind][0])
    remedies = "\n".join(f"For {' and '.join(named)}, set {remedy}." for remedy, named in meanings.items())
    return (
        f"The splits leak, so the scores would look better than the model is: {_summary(failures)}."
        f" Every pair is listed in {table}.\n{remedies} Or train anyway with audit.on_leak=warn."
    )
