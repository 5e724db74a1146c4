"""Downloads that give up within seconds where there is no network."""

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

# Long enough for a slow line to answer, short enough for a person without one to wait for the message.
ANSWER_SECONDS = 6.0
# Between two pieces of a download under way.
STALL_SECONDS = 30.0


def download(url: str, path: Path, show_progress: bool) -> None:
    """Fetch ``url`` into ``path``, checking the hash that the file's name ends in (``resnet18-f37072fd.pth``).

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
    """Make sure that the server is there.

    The question is asked in a thread: a name look-up has no time-out of its own.

    Raises:
        OSError: if no answer came within ``ANSWER_SECONDS``, or a refusal.
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
    """torch.hub takes no time-out, but its sockets take the default one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
