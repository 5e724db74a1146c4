"""A table of predictions is continued only by what began it: the same model, the same options, the same images."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ftexp.errors import ConfigError
from ftexp.files.file_format import check_format
from ftexp.files.json_files import read_json, write_json
from ftexp.files.run_files import CALIBRATION
from ftexp.inference.classifier import Classifier
from ftexp.inference.given import GivenImage
from ftexp.predict.layout import Layout, written_path
from ftexp.predict.tables import Table

FORMAT = 1


def facts_of(classifier: Classifier, layout: Layout) -> dict[str, object]:
    """What has to be the same where a table is gone on with."""
    return {
        "format": FORMAT,
        "model": str(classifier.run or classifier.source),
        "sha256": digest_of(Path(classifier.source)),
        "top_k": layout.top_k,
        "threshold": layout.threshold,
        "probabilities": layout.all_probabilities,
    }


def digest_of(model: Path) -> str:
    """Of a checkpoint or an exported file (of OpenVINO a pair), and of the calibration beside it."""
    digest = hashlib.sha256()
    beside = (model.with_suffix(".bin"), model.with_name(CALIBRATION))
    for file in sorted(model.rglob("*")) if model.is_dir() else (model, *beside):
        if file.is_file():
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def begin_or_go_on(
    table: Table, output: Path, facts: dict[str, object], images: Iterator[GivenImage], *, overwrite: bool
) -> int:
    """Make a table ready for more rows, and pass over the images whose rows it has.

    Args:
        output: the table's file, or of Parquet the folder; what began it stands in a JSON file beside it, or in it.
        facts: of this call; see ``facts_of``.
        images: all that are to be in the table, in order; those that it has are taken from them.
        overwrite: begin anew, whatever there is.

    Returns:
        How many rows the table has.

    Raises:
        ConfigError: when the table is another one's: of another model, other options or other images.
    """
    record = _record_of(output)
    if overwrite or not output.exists() or (output.is_dir() and not any(output.iterdir())):
        output.parent.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        table.begin()
        write_json(record, facts)
        return 0
    _check(output, record, facts)
    num_rows = 0
    for path in table.whole_rows():
        image = next(images, None)
        if image is None or written_path(image.path or "") != path:
            now = "there is no such image any more" if image is None else f"now {image.path} is in that place"
            raise ConfigError(
                f"{output} holds other images: its row {num_rows + 1} is {path}, and {now}. {_ways_out(output)}"
            )
        num_rows += 1
    return num_rows


@contextmanager
def alone_at(output: Path) -> Iterator[None]:
    """Keep other processes from writing to the same table.

    Raises:
        ConfigError: when one is at it.
    """
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output.with_name(f".{output.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(f"Another process is writing to {output}. Wait for it, or give another --output.") from None
    try:
        yield
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _check(output: Path, record: Path, facts: dict[str, object]) -> None:
    if not record.exists():
        raise ConfigError(
            f"{output} exists, and was not written by this command: {record.name} is not there. {_ways_out(output)}"
        )
    before = read_json(record)
    check_format(before.get("format"), FORMAT, record)
    if before.get("sha256") != facts["sha256"]:
        also = " as it was then" if before.get("model") == facts["model"] else ""
        raise ConfigError(f"{output} was written by {before.get('model')}{also}. {_ways_out(output)}")
    for name in ("top_k", "threshold", "probabilities"):
        if before.get(name) != facts[name]:
            option, was, now = name.replace("_", "-"), json.dumps(before.get(name)), json.dumps(facts[name])
            raise ConfigError(f"{output} was written with --{option} {was}, not {now}. {_ways_out(output)}")


def _record_of(output: Path) -> Path:
    return output / "_ftexp.json" if output.suffix.lower() == ".parquet" else output.with_name(f"{output.name}.json")


def _ways_out(output: Path) -> str:
    return f"Give another --output, or --overwrite to begin {shlex.quote(str(output))} anew."
