"""Random folders, tables and images: every file is used or reported, and errors are clear messages.

Each case reads a dataset, opens every image and cuts it. It ends with a result in which every image file on disk is
used or named or counted as left out, or in one message; never in another exception. What a case may hold is in
``strange_folders.PARTS`` and in ``strange_tables``.
"""

from __future__ import annotations

import codecs
import logging
import os
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from strange_folders import Case, build, images_on_disk
from strange_tables import ENCODINGS, write_table

import ftexp.data.sources.parquet_table
import ftexp.data.sources.text_table  # noqa: F401
from ftexp.config import DataConfig, ImageFolderConfig, ManifestConfig
from ftexp.data.loading.images import open_image
from ftexp.data.loading.screening import screen_images
from ftexp.data.samples import Sample
from ftexp.data.sources.registry import read_samples
from ftexp.data.splitting.splits import make_splits
from ftexp.errors import UserError

pytestmark = pytest.mark.slow

NUM_CASES = 300
# Another number draws other cases.
FIRST_CASE = int(os.environ.get("FTEXP_FIRST_CASE", "0"))
NOBODY = 65534
MAX_MESSAGE = 4000


@contextmanager
def permissions_hold(needed: bool) -> Iterator[None]:
    """Be somebody for whom they do, which root is not."""
    if not needed or os.getuid() != 0:
        yield
        return
    # What is imported when it is first used may lie where nobody but root may read.
    Image.init()
    for encoding in ENCODINGS:
        codecs.lookup(encoding)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ftexp-fuzz-"))
    folder.chmod(0o755)
    yield folder
    for parent, names, _ in os.walk(folder):
        for name in names:
            if not Path(parent, name).is_symlink():
                os.chmod(Path(parent, name), 0o700)
    shutil.rmtree(folder)


def open_all(config: DataConfig, folder: Path) -> tuple[list[Sample], list[Sample]]:
    """The samples that were listed, and those whose images can be opened."""
    listed = read_samples(config)
    kept = screen_images(listed, config, folder, workers=1)
    for sample in kept:
        image = open_image(sample)
        assert image.mode == "RGB"
        assert min(image.size) > 0
    return listed, kept


def cut(config: DataConfig, kept: list[Sample]) -> None:
    """All samples are in the splits."""
    splits = make_splits(kept, config)
    assert len(splits.train) + len(splits.val) + len(splits.test) == len(kept)


def check_nothing_is_lost(case: Case, listed: list[Sample], kept: list[Sample], said: list[str]) -> None:
    """Every image on disk is used, is among the bad ones, or lies where it was said that nothing is used."""
    used = {os.path.realpath(sample.path) for sample in listed}
    for path in images_on_disk(case.root):
        if os.path.realpath(path) not in used:
            assert is_said(case, path, said), f"lost without a word: {path}\n{said}"
    skipped = {sample.path for sample in listed} - {sample.path for sample in kept}
    assert {Path(path) for path in skipped if not os.path.islink(path)} <= case.bad
    assert not skipped or any(f"{len(skipped)} of {len(listed)} images are bad and left out" in line for line in said)
    for label in {sample.label for sample in listed} - {sample.label for sample in kept}:
        assert any(line.startswith(f"CLASS {label!r} IS LOST") for line in said)
    folders = {folder.name for folder in case.classes} | {path.name for path in case.root.iterdir()}
    assert {sample.label for sample in listed} <= {unicodedata.normalize("NFC", name) for name in folders}


def is_said(case: Case, path: Path, said: list[str]) -> bool:
    """Whether some line says that this image is not used."""
    above = [str(folder) for folder in path.parents if folder.is_relative_to(case.root) and folder != case.root]
    run = any("are not read as data" in line and any(folder in line for folder in above) for line in said)
    loose = any("images beside the folders of classes" in line for line in said)
    in_class = any(path.is_relative_to(folder) for folder in case.classes)
    unlabelled = any(line.startswith(f"{path.parent} contains ") and "no folders of classes" in line for line in said)
    return run or (loose and not in_class) or unlabelled


def run_case(seed: int, scratch: Path, caplog: pytest.LogCaptureFixture) -> str:
    """How it ended: ``used``, or the message."""
    caplog.clear()
    place = scratch / str(seed)
    case = Case(place / "data", place / "outside", np.random.default_rng(seed))
    case.root.mkdir(parents=True)
    case.outside.mkdir()
    place.chmod(0o777)
    build(case)
    try:
        if case.rng.random() < 0.35:
            file, num_rows = write_table(case)
            table = ManifestConfig(source="manifest", file=str(file), on_bad_image="skip")
            case.root.chmod(0o777)
            with permissions_hold(case.forbidden):
                listed, kept = open_all(table, place)
            assert num_rows in (None, len(listed)), "rows are lost without a word"
            cut(table, kept)
        else:
            layout = case.pick("auto", "auto", "auto", "classes")
            config = ImageFolderConfig(
                source="imagefolder",
                root=str(case.root),
                layout=layout,
                on_bad_image="skip",  # type: ignore[arg-type]
            )
            with permissions_hold(case.forbidden):
                listed, kept = open_all(config, place)
            check_nothing_is_lost(case, listed, kept, [record.getMessage() for record in caplog.records])
            cut(config, kept)
    except UserError as error:
        return str(error)
    return "used"


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_every_case_ends_in_a_result_or_a_message_and_no_image_is_lost(
    scratch: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ftexp")
    endings: Counter[str] = Counter()
    for seed in range(FIRST_CASE, FIRST_CASE + NUM_CASES):
        try:
            ending = run_case(seed, scratch, caplog)
            assert len(ending) < MAX_MESSAGE
            endings[ending if ending == "used" else "refused"] += 1
        except Exception as error:
            error.add_note(f"in case {seed}")
            raise
    assert min(endings["used"], endings["refused"]) > NUM_CASES / 5, endings
