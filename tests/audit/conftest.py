from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ftexp.data.samples import Sample


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[..., Sample]:
    def make(name: str, image: Image.Image, split: str = "train", label: str = "a", **options: object) -> Sample:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **options)
        return Sample(str(path), label, split)

    return make
