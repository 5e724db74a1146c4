from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftexp.config import ImageFolderConfig
from ftexp.data.sources import imagefolder
from ftexp.data.sources.imagefolder import read_imagefolder
from ftexp.errors import ConfigError, DataError

NOBODY = 65534


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def read(root: Path, **settings: str) -> list[imagefolder.Sample]:
    return read_imagefolder(ImageFolderConfig(source="imagefolder", root=str(root), **settings))


def found(root: Path, **settings: str) -> list[tuple[str, str, str | None]]:
    return [(str(Path(s.path).relative_to(root)), s.label, s.split) for s in read(root, **settings)]


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder of a user for whom permissions hold, which they do not for root."""
    folder = Path(tempfile.mkdtemp())
    try:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        yield folder
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        for parent, _, _ in os.walk(folder):
            os.chmod(parent, 0o700)
        shutil.rmtree(folder)


def test_one_folder_of_classes(tmp_path: Path) -> None:
    touch(tmp_path, "class10/a.jpg", "class2/b.png", "class2/deep/c.png", "README.md")
    assert found(tmp_path) == [
        ("class2/b.png", "class2", None),
        ("class2/deep/c.png", "class2", None),
        ("class10/a.jpg", "class10", None),
    ]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "valid", "Testing"),
        ("TRAIN", "Validation", "TEST"),
        ("train_set", "dev", "tests"),
        ("cars_train", "cars_eval", "cars_test"),
        ("train2017", "val2017", "test2017"),
    ],
)
def test_splits_as_folders(tmp_path: Path, train: str, val: str, test: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    touch(tmp_path, f"{train}/a/1.jpg", f"{train}/b/2.jpg", f"{val}/a/3.jpg", f"{test}/b/4.jpg")
    assert [(label, split) for _, label, split in found(tmp_path)] == [
        ("a", "train"),
        ("b", "train"),
        ("a", "val"),
        ("b", "test"),
    ]
    assert (f"{train} is train, {val} is val, {test} is test" in caplog.text) == (train != "train")


def test_a_split_unpacked_into_a_folder_of_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "seg_train/seg_train/a/1.jpg", "seg_train/seg_train/b/2.jpg", "seg_test/seg_test/a/3.jpg")
    assert [(label, split) for _, label, split in found(tmp_path)] == [("a", "train"), ("b", "train"), ("a", "test")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/a/1.jpg", "vall/a/1.jpg"], r"'vall' is not one of train, val, test\. Did you mean 'val'\?"),
        (["train/a/1.jpg", "Train/a/2.jpg"], r"contains Train, train, which are all usual names of the train"),
        (
            ["train/a/1.jpg", "val/a/1.jpg", "valid/a/2.jpg"],
            r"contains val, valid, which are all usual names of the val",
        ),
        (["val/a/1.jpg", "test/a/1.jpg"], r"contains test, val: these are names of splits, but there is no train/"),
        (["train/1.jpg", "test/2.jpg"], r"contains test, train: .* train/ contains no folders with images"),
        (["train/a/1.jpg", "chest_xray/a/1.jpg"], r"'chest_xray' is not one of train, val, test\. Rename or move it"),
        (["a/1.jpg", "b/1.jpg", "test/a/2.jpg", "test/b/2.jpg"], r"test has the name of a split and contains folders"),
        (["2020/cat/1.jpg", "2020/dog/1.jpg", "2021/cat/1.jpg", "2021/dog/1.jpg"], r"the same folders: cat, dog"),
        (["f1/a/1.jpg", "f1/b/1.jpg", "f1/c/1.jpg", "f2/a/1.jpg", "f2/B/1.jpg"], r"contains the same folders: a, b"),
        (["cat/train/1.jpg", "cat/test/1.jpg", "dog/train/1.jpg", "dog/test/1.jpg"], r"same folders: test, train"),
    ],
)
def test_an_ambiguous_layout_is_refused_and_layout_classes_resolves_it(
    tmp_path: Path, names: list[str], message: str
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path)
    assert str(raised.value).count("\n") == 0
    if "Keep one of them" not in str(raised.value):
        assert "data.layout=classes makes every folder" in str(raised.value)
    assert {label for _, label, _ in found(tmp_path, layout="classes")} == {name.split("/")[0] for name in names}


def test_classes_with_other_folders_in_them_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, "benign/p1/1.jpg", "benign/p2/2.jpg", "malignant/p3/3.jpg", "malignant/p1/4.jpg", "x/images/1.jpg")
    assert {label for _, label, _ in found(tmp_path)} == {"benign", "malignant", "x"}


def test_classes_with_one_folder_of_the_same_name_each(tmp_path: Path) -> None:
    touch(tmp_path, "cat/images/1.jpg", "dog/images/2.jpg")
    assert {label for _, label, _ in found(tmp_path)} == {"cat", "dog"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["train2017/1.jpg", "val2017/1.jpg", "annotations/x.json"],
            r"contains train2017, val2017: .* train2017/ contains no",
        ),
        (
            ["train/1.jpg", "t.csv", "train.csv", "sample_submission.csv"],
            r"class\. If train\.csv contains the labels: data=m",
        ),
        (["train/1.jpg", "train/_classes.csv"], r"If _classes\.csv contains .* data\.file=\S+/train/_classes\.csv\."),
        (
            ["1.jpg", "labels.tsv"],
            r"contains no folders but 1 images.* If labels\.tsv contains the labels: data=manifest",
        ),
        (["images/train/1.jpg", "labels/train/1.txt", "images/val/1.jpg", "labels/val/1.txt"], "for object detection"),
        (
            ["train/images/1.jpg", "train/labels/1.txt", "valid/images/1.jpg"],
            r"/train contains images/ and labels/, like a data",
        ),
        (["JPEGImages/1.jpg", "Annotations/1.xml"], r"contains JPEGImages/ and Annotations/, like a dataset"),
        (
            ["I/Data/C/train/a/1.jpg", "I/Data/C/val/1.jpg"],
            r"single folder, I/Data/C, with .* train, val\. .*=\S+/I/Data/C\.",
        ),
        (
            ["d/train/a/1.jpg", "d/train/b/1.jpg"],
            r"single folder, d, with the folders train\. .* data\.root=\S+/d\.",
        ),
    ],
)
def test_layouts_of_other_tasks_and_of_archives_are_known(tmp_path: Path, names: list[str], expected: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataError, match=expected):
        read(tmp_path)


def test_classes_called_images_and_labels(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "labels/2.jpg")
    assert {label for _, label, _ in found(tmp_path)} == {"images", "labels"}


def test_all_empty_folders_are_named_at_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "models/export.pth")
    for number in range(20):
        (tmp_path / f"e{number}").mkdir()
    with pytest.raises(
        DataError,
        match=r"^21 folders contain no images, .*/e0, \S+/e1, .* and 11 more\. Put.* other files: 1 x \.pth\.$",
    ) as raised:
        read(tmp_path)
    assert len(str(raised.value)) < 2000


def test_a_folder_around_the_classes_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "archive/cat/1.jpg", "archive/dog/2.jpg")
    with pytest.raises(DataError, match=r"single folder, archive, with .* cat, dog\. .*set data\.root=.*/archive"):
        read(tmp_path)


def test_a_class_called_train(tmp_path: Path) -> None:
    touch(tmp_path, "bus/1.jpg", "train/2.jpg", "car/3.jpg")
    assert [label for _, label, _ in found(tmp_path)] == ["bus", "car", "train"]


def test_a_split_without_classes_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/1.jpg", "test/2.jpg", "val/notes.txt")
    assert {split for _, _, split in found(tmp_path)} == {"train"}
    assert "test contains 2 images but no folders of classes: without labels they are not used" in caplog.text
    assert "val contains no images: the data has no val split" in caplog.text


def test_a_folder_without_images_beside_the_splits_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "annotations/1.xml", "docs/read/me.txt")
    assert len(found(tmp_path)) == 2
    assert "Folders beside the splits contain no images and are not used: annotations, docs." in caplog.text


def test_images_beside_the_classes_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "0.jpg", "train/1.jpg", "train/a/1.jpg", "train/b/1.jpg", "train/notes.md")
    assert len(found(tmp_path)) == 2
    assert "2 images beside the folders of classes have no label and are not used" in caplog.text


def test_runs_are_no_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg")
    hexadecimal = "0123456789abcdef" * 2
    touch(tmp_path, "outputs/2026-11-25/18-22-53/.hydra/config.yaml", "outputs/2026-11-25/18-22-53/curves.png")
    touch(tmp_path, "multirun/study/sweep.json", "multirun/study/0/run.json", "multirun/study/0/curves.png")
    touch(tmp_path, f"mlruns/1/{hexadecimal}/artifacts/curves.png", "first/ftexp.log", "first/plan.png")
    touch(tmp_path, f"mlruns/1/models/m-{hexadecimal}/artifacts/MLmodel")
    assert {label for _, label, _ in found(tmp_path)} == {"cat", "dog"}
    assert f"are not read as data: {tmp_path / 'first'}, " in caplog.text
    touch(tmp_path, "dog/run/.hydra/config.yaml", "dog/run/plan.png", "outputs/own.png")
    assert [path for path, _, _ in found(tmp_path)] == ["cat/1.jpg", "dog/2.jpg", "outputs/own.png"]
    assert f"{tmp_path / 'dog/run'}" in caplog.text


def test_folders_of_other_programs_are_no_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg", "args/args.yaml", "args/3.jpg")
    touch(tmp_path, "lightning_logs/version_0/hparams.yaml", "lightning_logs/version_0/images/grid.png")
    touch(tmp_path, "wandb/run-1-x/run-x.wandb", "wandb/run-1-x/files/media/images/0.png")
    touch(tmp_path, "runs/Nov26/events.out.tfevents.1764.host.1.0", "runs/Nov26/grid.png")
    touch(
        tmp_path, "runs/classify/train/args.yaml", "runs/classify/train/results.csv", "runs/classify/train/batch0.jpg"
    )
    touch(tmp_path, "output/train/1/args.yaml", "output/train/1/summary.csv", "output/train/1/0.png")
    touch(tmp_path, "venv/pyvenv.cfg", "venv/lib/site-packages/sklearn/datasets/images/china.jpg")
    touch(tmp_path, "conda/conda-meta/history", "conda/lib/mpl-data/images/home.png")
    assert {label for _, label, _ in found(tmp_path)} == {"args", "cat", "dog"}
    assert (
        f"are not read as data: {tmp_path / 'conda'}, {tmp_path / 'lightning_logs'}, {tmp_path / 'output'}, "
        in caplog.text
    )


def test_a_run_begun_in_the_folder_of_the_data_adds_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg", "run.json", "checkpoints/best.pt", ".hydra/config.yaml")
    assert {label for _, label, _ in found(tmp_path)} == {"cat", "dog"}
    touch(tmp_path, "checkpoints/3.jpg")  # a class of that name
    assert {label for _, label, _ in found(tmp_path)} == {"cat", "dog", "checkpoints"}


def test_hidden_and_clutter_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/.DS_Store", "a/.cache/2.jpg", "a/Thumbs.db", ".git/x/3.jpg", "b/4.jpg")
    touch(tmp_path, "__MACOSX/a/1.jpg", "a/@eaDir/1.jpg/SYNO_THUMB.jpg", ".ipynb_checkpoints/1.jpg", "a/Icon\r")
    assert [path for path, _, _ in found(tmp_path)] == ["a/1.jpg", "b/4.jpg"]


def test_other_files_are_counted_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a/1.JPG", "a/2.Jpeg", "a/3.tIFF", "a/1.txt", "a/2.TXT", "b/1.png", "b/1.xml", "b/LICENSE")
    assert len(found(tmp_path)) == 4
    assert [record.message for record in caplog.records] == [
        "4 files in the folders of classes are not images and are not used (2 x .txt, 1 x .xml, 1 x no suffix),"
        f" for example '{tmp_path / 'a/1.txt'}'."
    ]


def test_an_image_without_a_suffix_is_recognised_by_its_first_bytes(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "b" / "2").write_bytes(b"\x89PNG\r\n\x1a\n...")
    (tmp_path / "b" / "3.img").write_bytes(b"\xff\xd8\xff\xe0...")
    assert [path for path, _, _ in found(tmp_path)] == ["a/1.jpg", "b/1.jpg", "b/2", "b/3.img"]


def test_links_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/cats/more/1.jpg", "store/cats/2.jpg", "store/3.jpg", "root/cat/4.jpg", "root/dog/5.jpg")
    root = tmp_path / "root"
    (root / "cat" / "linked").symlink_to(tmp_path / "store" / "cats")
    (root / "dog" / "3.jpg").symlink_to(tmp_path / "store" / "3.jpg")
    (root / "cat" / "gone.jpg").symlink_to("nowhere.jpg")  # named by the check of all images
    assert [path for path, _, _ in found(root)] == [
        "cat/4.jpg",
        "cat/gone.jpg",
        "cat/linked/2.jpg",
        "cat/linked/more/1.jpg",
        "dog/3.jpg",
        "dog/5.jpg",
    ]


@pytest.mark.parametrize("target", [".", "..", "../..", "/", "deep", "link"])
def test_loops_end_and_no_folder_is_read_twice(tmp_path: Path, target: str, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "root"
    touch(root, "cat/deep/1.jpg", "cat/2.jpg", "dog/3.jpg")
    (root / "cat" / "link").symlink_to(target)
    if target == "link":
        with pytest.raises(DataError, match=r"cat/link is a broken link \(to link\)\. Repair or remove it"):
            read(root)
        return
    assert [path for path, _, _ in found(root)] == ["cat/2.jpg", "cat/deep/1.jpg", "dog/3.jpg"]
    assert f"1 links to folders that are read already are not followed, for example {root}/cat/link" in (caplog.text)


def test_a_folder_goes_by_its_own_path_before_that_of_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "cat/deep/inner/1.jpg", "dog/3.jpg")
    (tmp_path / "cat" / "a").symlink_to("deep/inner")
    assert [path for path, _, _ in found(tmp_path)] == ["cat/deep/inner/1.jpg", "dog/3.jpg"]


def test_a_link_into_a_folder_that_may_not_be_entered_is_an_error(as_nobody: Path) -> None:
    touch(as_nobody, "data/cat/1.jpg", "data/dog/2.jpg", "locked/more/3.jpg")
    (as_nobody / "data" / "cat" / "more").symlink_to(as_nobody / "locked" / "more")
    (as_nobody / "data" / "cat" / "3.jpg").symlink_to(as_nobody / "locked" / "more" / "3.jpg")
    (as_nobody / "locked").chmod(0)
    with pytest.raises(DataError, match=rf"{as_nobody}/data/cat/(more|3\.jpg) cannot be read: Permission denied"):
        read(as_nobody / "data")


def test_a_loop_at_the_top_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "self").symlink_to(".")
    assert {label for _, label, _ in found(tmp_path)} == {"cat", "dog"}


def test_one_folder_of_two_classes_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg")
    (tmp_path / "kitten").symlink_to("cat")
    with pytest.raises(DataError, match=r"cat and .*kitten are the same folder.*'cat' and to class 'kitten'"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["cow", "cat/more"])
def test_a_linked_folder_that_is_gone_is_an_error(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    (tmp_path / name).symlink_to("/nowhere/at/all")
    with pytest.raises(DataError, match=rf"{name} is a broken link \(to /nowhere/at/all\)"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["", "dog", "dog/deep", "train"])
def test_a_folder_that_may_not_be_read_is_an_error(as_nobody: Path, name: str) -> None:
    touch(as_nobody, "cat/1.jpg", "dog/deep/1.jpg", "train/2.jpg")
    (as_nobody / name).chmod(0)
    with pytest.raises(DataError, match=rf"{as_nobody / name} cannot be read: Permission denied"):
        read(as_nobody)


@pytest.mark.timeout(20)
def test_pipes_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    os.mkfifo(tmp_path / "dog" / "2.jpg")
    (tmp_path / "dog" / "3.jpg").symlink_to("2.jpg")
    os.mkfifo(tmp_path / "pipe")
    assert [path for path, _, _ in found(tmp_path)] == ["cat/1.jpg", "dog/1.jpg"]
    assert "2 pipes, sockets or devices are not read" in caplog.text


def test_names_with_wide_and_narrow_spaces(tmp_path: Path) -> None:
    touch(tmp_path, "a/Screenshot at 9.00\u202fAM.png", "b\u3000c/1.jpg")
    assert len(found(tmp_path)) == 2


def test_a_name_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/caf\udce9.jpg")
    with pytest.raises(DataError, match=r"caf\\udce9\.jpg'.*unprintable characters\. Rename it"):
        read(tmp_path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root=.*nowhere does not exist.*one folder of images per class"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("root", ["", "  "])
def test_an_empty_root_is_refused(root: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.root is empty\. .* for the working folder write data\.root=\."):
        ImageFolderConfig(source="imagefolder", root=root)


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "pictures.zip")
    with pytest.raises(DataError, match="is a file, not a folder"):
        read(tmp_path / "pictures.zip")


def test_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no folders, so there are no classes"):
        read(tmp_path)


def test_images_without_any_classes(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(
        DataError, match=r"contains no folders but 2 images, for example 1\.jpg, so there are no classes"
    ):
        read(tmp_path)


def test_empty_class(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/.hidden")
    with pytest.raises(DataError, match=r"b contains no files\. Put the images of class 'b' into it"):
        read(tmp_path)


def test_a_class_without_images(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "notes/1.txt", "notes/deep/2.pdf")
    with pytest.raises(
        DataError,
        match=r"no images among its 2 files\. Put the images of class 'notes'.* files: 1 x \.txt, 1 x \.pdf\.$",
    ):
        read(tmp_path)
