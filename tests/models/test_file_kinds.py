"""Files that are given as weights and contain none are described in the message."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from ftexp.errors import WeightsError
from ftexp.models.file_kinds import check_kind, is_safetensors

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(100)
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x051.9.0:" + bytes(range(128, 200))


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 2000)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("net.pth"), io.BytesIO())
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


def saved(content: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


TENSORS = {"w": torch.ones(4, 4)}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pth", b"", "empty; the download"),
        ("a.pth", bytes(4096), "nothing but zero bytes"),
        ("a.safetensors", LFS, "a Git LFS pointer.*git lfs pull"),
        ("a.bin", b"/annex/objects/SHA256E-s1--ab\n", "a git-annex pointer"),
        ("a.ckpt", b"\xef\xbb\xbf\n <!doctype HTML>\n<title>Sign in</title>", "a web page that a server sent"),
        ("a.ckpt", b"<html><body>404</body></html>", "a web page"),
        ("a.pt", b"<?xml version='1.0'?><Error>AccessDenied</Error>", "a web page"),
        ("a.pth", b"Entry not found", "a text that begins with 'Entry not found'"),
        ("a.pth", b'{"error": "Repository not found \xc3\xa9"}' * 40, "a text that begins with"),
        ("a.pth", HDF5, "a file of TensorFlow or Keras"),
        ("a.keras", zipped("metadata.json", "config.json", "model.weights.h5"), "a file of TensorFlow or Keras"),
        ("saved_model.pb", b"\x08\x01\x12\xff\xfe", "a file of TensorFlow or Keras"),
        ("a.tflite", b"\x1c\0\0\0TFL3" + bytes([200] * 90), "a file of TensorFlow or Keras"),
        ("a.pth", ONNX, "a network for ONNX Runtime"),
        ("a.onnx", b"\x08\x0a\x12\xff\xfe\xfd", "a network for ONNX Runtime"),
        ("a.pt", arrays(), "a file of NumPy arrays"),
        ("a.npy", b"\x93NUMPY\x01\0", "a file of NumPy arrays"),
        ("a.msgpack", b"\x81\xa6params\x80\xff", "a file of Flax"),
        ("a.pth", gzip.compress(b"x", mtime=0), "a compressed archive; unpack it"),
        ("a.pth.tar", tarred(), "a compressed archive; unpack it"),
        (
            "a.pth",
            zipped("net/model.pth", "net/readme.txt"),
            r"a zip archive of other files \(2, .* net/model\.pth\); unp",
        ),
        ("a.pt", zipped("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl"), "a TorchScript program"),
        ("a.pth", saved(TENSORS)[:-200], "a truncated or damaged archive"),
        ("a.pt", b"\x89PNG\r\n\x1a\n" + bytes([255] * 9), "an image"),
    ],
)
def test_it_is_said_what_a_file_is(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name} holds no weights: it is {said}"):
        check_kind(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [saved(TENSORS), saved(TENSORS, _use_new_zipfile_serialization=False), save(TENSORS)],
    ids=["torch", "old torch", "safetensors"],
)
@pytest.mark.parametrize("name", ["a.pth", "a.weights", "a"])
def test_files_of_weights_pass_whatever_they_are_called(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    check_kind(tmp_path / name)


def test_safetensors_are_known_by_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(save(TENSORS))
    (tmp_path / "b.safetensors").write_bytes(saved(TENSORS))
    (tmp_path / "short").write_bytes(b"\x10\0")
    assert [is_safetensors(tmp_path / name) for name in ("a.bin", "b.safetensors", "short")] == [True, False, False]
