"""Downloads that fail within seconds if there is no network."""

from __future__ import annotations

import os
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

# How long a server may take to answer: enough for a slow connection, and not too long to wait without a network.
ANSWER_SECONDS = 6.0
# The longest pause within a download.
STALL_SECONDS = 30.0


def download(url: str, path: Path, show_progress: bool) -> None:
    """Download ``url`` to ``path``, and check the hash at the end of the file's name (``resnet18-f37072fd.pth``).

    Args:
        url: address of the file.
        path: file to write; its folder is made if it is missing.
        show_progress: whether a progress bar is shown.

    Raises:
        OSError: if the server does not answer in time, refuses, stalls, or sends something else.
    """
    check_answers(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    marked = re.search(r"-([a-f0-9]{8,})\.", path.name)
    try:
        with _stall_limit(STALL_SECONDS):
            torch.hub.download_url_to_file(url, str(path), marked.group(1) if marked else None, show_progress)
    except RuntimeError as error:  # the hash
        raise OSError(str(error)) from error


def check_answers(url: str) -> None:
    """Check that the server answers.

    The request is made in a thread, because name resolution has no time-out.

    Raises:
        OSError: if there is no answer within ``ANSWER_SECONDS``, or an error.
    """
    if os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True"):
        raise OSError("HF_HUB_OFFLINE is set")
    failure: list[OSError | None] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "ftexp"})
        try:
            urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()
            failure.append(None)
        except OSError as error:
            failure.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if not failure:
        raise OSError(f"no answer within {ANSWER_SECONDS:g} s")
    if failure[0] is not None:
        raise failure[0]


@contextmanager
def _stall_limit(seconds: float) -> Iterator[None]:
    """Set the default time-out of sockets, because torch.hub has no parameter for one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
