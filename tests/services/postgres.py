"""A PostgreSQL server from the machine's own programs, for as long as a test needs it."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

SECONDS_TO_START = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def programs() -> Path:
    found = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))]
    on_path = shutil.which("postgres")
    if not found and on_path is None:
        pytest.skip("no PostgreSQL on this machine")
    return found[-1] if found else Path(str(on_path)).parent


@contextmanager
def postgres_server(*databases: str) -> Iterator[str]:
    """Start one on loopback with these databases; gives its URL without a database, and stops it in the end."""
    folder, port, password = Path(tempfile.mkdtemp(prefix="ftexp-postgres-")), free_port(), secrets.token_hex(8)
    (folder / "password").write_text(password)
    own: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:  # which PostgreSQL refuses
        account = pwd.getpwnam("nobody")
        own |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        for path in (folder, folder / "password"):
            os.chown(path, account.pw_uid, account.pw_gid)
    make = ["--username=ftexp", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--encoding=UTF8"]
    subprocess.run(
        [programs() / "initdb", "--locale=C", "--no-sync", *make, f"--pgdata={folder / 'data'}"],
        check=True,
        capture_output=True,
        timeout=SECONDS_TO_START,
        **own,
    )
    settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", f"port={port}", "fsync=off"]
    options = [part for setting in settings for part in ("-c", setting)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [programs() / "postgres", "-D", folder / "data", *options], stdout=log, stderr=log, **own
        )
        try:
            address = f"ftexp:{password}@127.0.0.1:{port}"
            with _connect(f"postgresql://{address}/postgres", process) as connection:
                for name in databases:
                    connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
            yield f"postgresql+psycopg://{address}"
        finally:
            process.send_signal(signal.SIGINT)  # disconnects who is left
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
            shutil.rmtree(folder, ignore_errors=True)


def _connect(url: str, process: subprocess.Popen[bytes]) -> psycopg.Connection[Any]:
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            return psycopg.connect(url, autocommit=True)
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
