"""Reads and writes JSON files: strictly valid JSON, written atomically."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftexp.errors import CheckpointError
from ftexp.files.whole_file import replaced_whole


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Replace the file atomically and durably; numbers that JSON does not have become null (see ``plain``).

    Raises:
        OSError: with ``path`` as its file name, when it cannot be written.
    """
    text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
    with replaced_whole(path, durable=True) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that ``write_json`` wrote.

    Raises:
        FileNotFoundError: when there is no such file.
        CheckpointError: when it is damaged or cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged or cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged: it is not a JSON object.")
    return content


def plain(value: object) -> object:
    """Replace NaN and infinite numbers by None, since Python would write them as literals that are not valid JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
