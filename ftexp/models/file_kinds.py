"""Recognises by their first bytes files that hold no weights for PyTorch, and says what they are and what to do."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ftexp.errors import WeightsError

HEAD_BYTES = 512
# The Hugging Face hub's index of weights that are split into several files.
INDEX = ".index.json"
TENSORFLOW = "a file of TensorFlow or Keras; take the weights for PyTorch (.pth, .safetensors) of the same network"
ONNX = "a network for ONNX Runtime; take the weights for PyTorch (.pth, .safetensors) that it was exported from"
COMPRESSED = "a compressed archive; unpack it, and give the file that is inside"
NUMPY = "a file of NumPy arrays; take the weights for PyTorch (.pth, .safetensors) of the same network"

# By the first bytes of a file.
MARKS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; fetch it with git lfs pull",
    b"/annex/objects": "a git-annex pointer, not the file itself; fetch it with git annex get",
    b"../.git/annex": "a git-annex pointer, not the file itself; fetch it with git annex get",
    b"\x89HDF\r\n": TENSORFLOW,
    b"GGUF": "a language model of llama.cpp; take the weights of an image classifier",
    b"\x93NUMPY": NUMPY,
    b"\x1f\x8b": COMPRESSED,
    b"BZh": COMPRESSED,
    b"\xfd7zXZ": COMPRESSED,
    b"7z\xbc\xaf": COMPRESSED,
    b"(\xb5/\xfd": COMPRESSED,
    b"Rar!": COMPRESSED,
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"%PDF": "a PDF document",
    b"SQLite format 3": "an SQLite database",
}
# By the end of a file's name, if its bytes are not enough to tell.
SUFFIXES = {
    ".onnx": ONNX,
    ".pb": TENSORFLOW,
    ".keras": TENSORFLOW,
    ".tflite": TENSORFLOW,
    ".index": TENSORFLOW,
    ".data-00000-of-00001": TENSORFLOW,
    ".msgpack": "a file of Flax; take the weights for PyTorch (.pth, .safetensors) of the same network",
    ".mlmodel": "a network for Core ML; take the weights for PyTorch (.pth, .safetensors) it was converted from",
    ".gguf": "a language model of llama.cpp; take the weights of an image classifier",
}


def check_kind(path: Path) -> None:
    """Refuse a file that holds no weights for PyTorch, before its content is read.

    Raises:
        WeightsError: if it holds none; the message says what the file is and what to do.
        OSError: if it cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    kind = _kind(path, head)
    if kind is not None:
        raise WeightsError(f"{path} holds no weights: it is {kind}.")


def is_safetensors(path: Path) -> bool:
    """Whether a file has the safetensors format (a length, then JSON), whatever its name."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


def _kind(path: Path, head: bytes) -> str | None:
    if not head:
        return "empty; the download or the copy did not finish: download or copy it again"
    marked = next((kind for mark, kind in MARKS.items() if head.startswith(mark)), None)
    if marked is not None:
        return marked
    if head.startswith(b"PK"):
        return _kind_of_zip(path)
    if head[4:8] == b"TFL3":
        return TENSORFLOW
    if head[257:262] == b"ustar":
        return COMPRESSED
    if head[:1] == b"\x08" and head[2:3] == b"\x12" and b"pytorch" in head[:64]:
        return ONNX
    if not any(head):
        return "nothing but zero bytes; the download or the copy did not finish: download or copy it again"
    return next((kind for end, kind in SUFFIXES.items() if path.name.lower().endswith(end)), None) or _kind_of_text(
        head
    )


def _kind_of_text(head: bytes) -> str | None:
    try:
        text = head.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # nearer to the end, a character may just be cut off
            return None
        text = head[: error.start].decode("utf-8-sig").strip()
    if not text or not all(character.isprintable() or character.isspace() for character in text):
        return None
    if text.lower().startswith(("<!doctype html", "<html", "<?xml", "<head", "<body")):
        return "a web page that a server sent instead of the file; download the file itself"
    start = text.splitlines()[0][:60]
    return f"a text that begins with {start!r}, perhaps a server's answer instead of the file; download it again"


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a truncated or damaged archive; download or copy it again"
    tails = {name.rpartition("/")[2] for name in names}
    if any(name.startswith("code/") or "/code/" in name for name in names):
        return (
            "a TorchScript program; save the weights of the network that it was made from: "
            "torch.save(model.state_dict(), FILE)"
        )
    if "data.pkl" in tails:
        return None
    if "model.weights.h5" in tails:
        return TENSORFLOW
    if names and all(name.endswith(".npy") for name in names):
        return NUMPY
    if "archive_format" in tails:
        return "a torch.export program; save the weights of the network: torch.save(model.state_dict(), FILE)"
    example = f", for example {names[0]}" if names else ""
    return f"a zip archive of other files ({len(names)}{example}); unpack it, and give the file of weights in it"
