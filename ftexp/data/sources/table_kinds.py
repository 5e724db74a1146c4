"""Recognises files that are not tables by their first bytes, and says what to do with them."""

from __future__ import annotations

from pathlib import Path

from ftexp.errors import DataError

TEXT_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
PARQUET = b"PAR1"
_WORKBOOK = "a workbook of Excel; save the sheet as CSV (UTF-8)"
_JSON = "JSON; write it as a table once: pandas.read_json(FILE, lines=True).to_csv(NEW, index=False)"
_LFS = "a Git LFS pointer, not the table itself; run git lfs pull"
_PAGE = "a web page (HTML), not a table; the download may have failed"

# First bytes -> what the file is, and what to do.
_SIGNATURES = {
    b"PK\x03\x04": "a workbook of Excel, or a ZIP archive; save the sheet as CSV (UTF-8), or unpack it",
    b"\xd0\xcf\x11\xe0": _WORKBOOK,
    b"\x1f\x8b": "compressed (gzip); unpack it",
    b"BZh": "compressed (bzip2); unpack it",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); unpack it",
    b"version https://git-lfs": _LFS,
    b"ARROW1": "a file of Arrow (Feather); write it as Parquet",
    b"SQLite format 3": "a database of SQLite; export its table as CSV",
}
_SUFFIXES = {".xlsx": _WORKBOOK, ".xls": _WORKBOOK, ".ods": "a workbook; save the sheet as CSV (UTF-8)"}
_SUFFIXES |= dict.fromkeys((".json", ".jsonl", ".ndjson"), _JSON)


def check_table(given: str, file: Path) -> None:
    """Refuse a file that is neither text nor Parquet.

    Args:
        given: the path as the user wrote it, for messages.
        file: the path of the file.

    Raises:
        DataError: saying what the file is and what to do.
    """
    try:
        with file.open("rb") as content:
            start = content.read(512)
    except OSError as error:
        raise DataError(f"data.file={given} cannot be read: {error.strerror}.") from error
    suffix = file.suffix.lower()
    kind = _kind(suffix, start)
    if kind is not None:
        raise DataError(f"data.file={given} is {kind}.")
    if suffix not in (*TEXT_SUFFIXES, ".parquet"):
        raise DataError(f"data.file={given}: the name must end in .csv, .tsv or .parquet, which names its format.")


def _kind(suffix: str, start: bytes) -> str | None:
    if start.startswith(PARQUET):
        return None if suffix == ".parquet" else "a Parquet file; rename it so that its name ends in .parquet"
    known = [what for signature, what in _SIGNATURES.items() if start.startswith(signature)]
    if known or suffix in _SUFFIXES:
        return known[0] if known else _SUFFIXES[suffix]
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return _PAGE
    if text.startswith((b'{"', b'[{"', b"[\n", b"{\n")):
        return _JSON
    return "not a Parquet file, or damaged; download or write it again" if suffix == ".parquet" else None
