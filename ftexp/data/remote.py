"""Reads files by their URL, with fsspec: ``s3://``, ``gs://``, ``hf://``, ``https://``, ``memory://`` and others."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar, cast

from ftexp.errors import nearest

T = TypeVar("T")

# A scheme has two letters or more, because one is a drive of Windows. fsspec chains file systems by "::", as in
# filecache::s3://bucket/000.tar, which keeps what it reads on the local disk.
_URL = re.compile(r"(?:[a-z0-9_]+::)*[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Scheme -> what to install for it; fsspec itself brings the others.
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
    "sftp": "paramiko",
    "smb": "smbprotocol",
}
# How often a request is sent, and the pause before the second time, which doubles.
TRIES, PAUSE_SECONDS = 3, 0.5
# How the reason begins when nothing is known of the file itself.
UNREACHED = "cannot be reached"
_FORBIDDEN, _GONE = frozenset({401, 403}), frozenset({404, 410})


class UnreadableError(OSError):
    """The bytes of an image cannot be read; the message is the reason, without the name of the image."""


class NetworkError(UnreadableError):
    """The server cannot be reached, or answers with an error of its own."""


def is_url(path: str) -> bool:
    """Whether a path is a URL and not a path of this machine."""
    return _URL.match(path) is not None


def read_url(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Read a file, or its bytes from ``start`` up to and without ``end``.

    Raises:
        FileNotFoundError: when there is no such file.
        PermissionError: when it must not be read.
        UnreadableError: for any other reason.
    """
    content = _asked(url, lambda system, path: cast(bytes, system.cat_file(path, start=start, end=end)))
    if start is not None and end is not None and len(content) > end - start:
        raise UnreadableError(
            "the server sends whole files only (it ignores the header Range); download the file, or read it as"
            f" filecache::{url}"
        )
    return content


def open_url(url: str) -> BinaryIO:
    """Open a file to be read from the beginning to the end; raises as ``read_url`` does."""
    return _asked(url, lambda system, path: cast(BinaryIO, system.open(path, "rb", cache_type="readahead")))


def state_of_url(url: str) -> str:
    """What the server tells of a file, such as its size and its ETag, as one text; raises as ``read_url`` does."""

    def state(system: Any, path: str) -> str:
        system.invalidate_cache()
        return repr(sorted(system.info(path).items(), key=lambda item: str(item[0])))

    return _asked(url, state)


def size_of_url(url: str) -> int:
    """The size of a file in bytes; raises as ``read_url`` does."""
    return _asked(url, lambda system, path: int(system.size(path)))


def matching_urls(pattern: str) -> list[str]:
    """The URLs that a pattern with ``*`` matches, sorted; raises as ``read_url`` does."""

    def found(system: Any, path: str) -> list[str]:
        return sorted(cast(str, system.unstrip_protocol(name)) for name in system.glob(path))

    return _asked(pattern, found)


def reason_of(error: OSError) -> str:
    """Why a file cannot be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "this user has no permission to read it (permission denied)"
    return str(error) if isinstance(error, UnreadableError) else error.strerror or str(error)


def _asked(url: str, ask: Callable[[Any, str], T]) -> T:
    system, path = _file_system(url)
    for attempt in range(TRIES):
        try:
            return ask(system, path)
        except Exception as error:  # the file systems raise errors of many libraries
            known = explained(error)
            if attempt == TRIES - 1 or not isinstance(known, NetworkError):
                raise known from error
        time.sleep(PAUSE_SECONDS * 2**attempt)
    raise AssertionError


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, which fsspec keeps for each process, and the path in it."""
    import fsspec

    scheme = url.partition("://")[0].rpartition("::")[2].lower()
    try:
        return cast(tuple[Any, str], fsspec.url_to_fs(url))
    except ImportError as error:
        package = PACKAGES.get(scheme)
        install = f": pip install {package}" if package else f" ({error})"
        raise UnreadableError(f"{scheme}:// needs a package that is not installed{install}") from error
    except ValueError as error:
        known = fsspec.available_protocols()
        if scheme in known:
            raise UnreadableError(f"is not a valid {scheme}:// address: {error}") from error
        raise UnreadableError(f"fsspec knows no {scheme}://.{nearest(scheme, known, at_least=0.6)}") from error
    except Exception as error:
        raise explained(error) from error


def explained(error: Exception) -> OSError:
    """An error of a file system as one of a few kinds."""
    cause = error.__cause__
    # fsspec's HTTP file system calls a file missing whenever it cannot ask for its size, whatever the reason is.
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and not _says_it_is_missing(cause):
        return explained(cause)
    status = getattr(error, "status", None)
    if isinstance(error, (FileNotFoundError, PermissionError, UnreadableError)):
        return error
    if isinstance(error, IsADirectoryError):
        return UnreadableError("is a folder, not a file")
    if status in _FORBIDDEN or "Credential" in type(error).__name__:
        return PermissionError(f"{error} ({type(error).__name__})")
    if isinstance(status, int) and 400 <= status < 500:
        return UnreadableError(f"the server answers {status} ({getattr(error, 'message', '')})")
    what = f"{error} ({type(error).__name__})" if str(error) else type(error).__name__
    return NetworkError(f"{UNREACHED}: {what.rstrip('.')}; check the address and the network")


def _says_it_is_missing(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError):
        return True
    status = getattr(error, "status", None)
    of_http = type(error).__module__.startswith("aiohttp.")  # its errors are OSErrors only in part
    return status in _GONE if status is not None else not (of_http or isinstance(error, OSError))
