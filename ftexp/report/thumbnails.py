"""Small pictures of samples inside a page."""

from __future__ import annotations

import io

from PIL import Image

from ftexp.data.loading.images import open_image
from ftexp.data.samples import Sample
from ftexp.errors import DataError
from ftexp.report.html_page import image_tag


def thumbnail(sample: Sample, side: int) -> str:
    """As HTML, at most ``side`` pixels wide and high; a few words where its file is gone since it was read."""
    try:
        image = open_image(sample)
    except DataError:
        return "(cannot be read any more)"
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    return image_tag(content.getvalue(), "jpeg", sample.path)
