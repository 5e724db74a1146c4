"""Pictures as addresses that hold their content, because the page loads nothing."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from ftexp.files.run_files import LEAKS_PICTURE


def data_uri(image: Image.Image) -> str:
    """The address of an RGB image, as JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def leaking_pairs(folder: Path) -> str | None:
    """The address of the worst pairs that the audit of a run drew; None if it found none."""
    if not (folder / LEAKS_PICTURE).exists():
        return None
    with Image.open(folder / LEAKS_PICTURE) as image:
        return data_uri(image.convert("RGB"))
