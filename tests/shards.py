"""Tiny WebDataset shards, and a server on this machine that sends files, whole or in parts."""

from __future__ import annotations

import io
import socket
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


def png(colour: str, number: int) -> bytes:
    """A picture of 40 x 40 pixels: noise around a colour, another one for each number."""
    noise = np.random.default_rng(number).normal(0, 50, (40, 40, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def tar_bytes(members: Mapping[str, bytes] | list[tuple[str, bytes]], **settings: int) -> bytes:
    """A tar with these files, in this order."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **settings) as tar:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def shard(first: int, count: int) -> bytes:
    """Pictures in three colours with their labels, numbered from ``first``."""
    members = {}
    for number in range(first, first + count):
        colour = list(COLOURS)[number % 3]
        members |= {f"{number:04d}.png": png(colour, number), f"{number:04d}.cls": colour.encode()}
    return tar_bytes(members)


def write_shards(folder: Path, count: int = 2, images: int = 15) -> Path:
    """Shards ``part-000.tar`` and so on in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"part-{number:03d}.tar").write_bytes(shard(number * images, images))
    return folder


@contextmanager
def serving(files: Mapping[str, bytes], ranges: bool = True) -> Iterator[str]:
    """A web server with these files; ``/forbidden`` answers 403, and ``/broken`` 503.

    At names that begin with ``lost`` it hangs up without an answer, and with ``half`` in the middle of the content.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(False)

        def do_GET(self) -> None:
            self._answer(True)

        def log_message(self, *_: object) -> None:
            pass

        def _hang_up(self) -> None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

        def _answer(self, with_content: bool) -> None:
            if self.path.startswith("/lost"):
                self._hang_up()
                return
            content = files.get(self.path.removeprefix("/"))
            if content is None:
                self.send_error({"/forbidden": 403, "/broken": 503}.get(self.path, 404))
                return
            asked = self.headers.get("Range") if ranges else None
            if asked is not None:
                first, last = asked.removeprefix("bytes=").split("-")
                content = content[int(first) : int(last) + 1]
            self.send_response(206 if asked is not None else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_content and self.path.startswith("/half"):
                self.wfile.write(content[: len(content) // 2])
                self._hang_up()
            elif with_content:
                self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
