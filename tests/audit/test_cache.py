"""An audit cache that cannot be used causes one warning, and the audit continues."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import torch

from ftexp.audit import cache as cache_module
from ftexp.audit import features as features_module
from ftexp.audit.cache import FingerprintCache
from ftexp.audit.features import PretrainedFeatures
from ftexp.audit.fingerprints import _cache_key


def blocked(kind: str, folder: Path) -> Path:
    """A file that cannot be a cache."""
    file = folder / "cache.sqlite"
    if kind == "folder":
        file.mkdir()
    elif kind == "garbage":
        file.write_bytes(b"no database" * 500)
    elif kind == "cut short":
        FingerprintCache(file).put({f"{n}": bytes(2000) for n in range(20)})
        file.write_bytes(file.read_bytes()[:9000])
    elif kind == "another table":
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE fingerprints (name TEXT)")
    elif kind == "below a file":
        file.touch()
        return file / "cache.sqlite"
    return file


@pytest.mark.parametrize("kind", ["folder", "garbage", "cut short", "another table", "below a file"])
def test_a_file_that_is_not_a_cache_causes_one_warning(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = blocked(kind, tmp_path)
    before = file.read_bytes() if file.is_file() else b""
    cache = FingerprintCache(file)
    for _ in range(2):
        assert cache.get(["a", "b"]) == {}
        cache.put({"a": b"1"})
    cache.close()
    (message,) = caplog.messages
    assert message.startswith(f"audit   audit.cache={file} cannot be used (")
    assert "another file with audit.cache=FILE, or none with audit.cache=null" in message
    assert not before or file.read_bytes() == before, "what it is may be dear to somebody"


def test_a_read_only_cache_is_still_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "cache.sqlite"
    FingerprintCache(file).put({"a": b"1"})
    cache = FingerprintCache(file)
    assert cache._connection is not None
    cache._connection.execute("PRAGMA query_only = 1")  # what a read-only file system makes of it
    cache.put({"b": b"2"})
    cache.put({"b": b"2"})
    assert cache.get(["a", "b"]) == {"a": b"1"}
    (message,) = caplog.messages
    assert "readonly database" in message


def test_a_full_disk_causes_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = FingerprintCache(tmp_path / "cache.sqlite")
    assert cache._connection is not None
    cache._connection.execute("PRAGMA max_page_count = 3")
    cache.put({f"{n}": bytes(2000) for n in range(20)})
    assert cache.get(["1"]) == {}
    (message,) = caplog.messages
    assert "full" in message


def test_damaged_entries_are_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "cache.sqlite"
    cache = FingerprintCache(file)
    cache.put({"a": b"content", "b": b"content", "c": b"content"})
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE fingerprints SET value = CAST('other' AS BLOB) WHERE key LIKE '%/b'")
        connection.execute("UPDATE fingerprints SET value = 7 WHERE key LIKE '%/c'")
    assert cache.get(["a", "b", "c"]) == {"a": b"content"}
    cache.put({"b": b"again"})
    assert cache.get(["b"]) == {"b": b"again"}
    assert not caplog.messages


def test_entries_of_another_decoder_version_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FingerprintCache(tmp_path / "cache.sqlite")
    cache.put({"a": b"content"})
    monkeypatch.setattr(cache_module, "decoders", lambda: "pillow 0.0.1")
    assert cache.get(["a"]) == {}


@pytest.mark.parametrize("library", ["timm", "torch"])
def test_features_of_another_version_of_a_library_are_not_used(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    before = _cache_key("d", None, PretrainedFeatures(torch.device("cpu")))
    monkeypatch.setattr(getattr(features_module, library), "__version__", "0.0.1")
    now = _cache_key("d", None, PretrainedFeatures(torch.device("cpu")))
    assert now != before
    assert now.partition(":")[0] == before.partition(":")[0] == "d"
