"""A model that MLflow serves on this machine, for as long as one question takes."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest


def ask_the_served_model(folder: Path, command: Sequence[str], picture: Path) -> dict[str, Any]:
    """What a server of MLflow answers to a request with a picture as base64 text.

    Args:
        folder: the working folder of the server, with ``mlflow.db`` in it.
        command: ``mlflow models serve ...``; its address is added.
        picture: the file to send.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow looks for uvicorn there
    environment = {**os.environ, "PATH": programs, "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    image = base64.b64encode(picture.read_bytes()).decode()
    question = json.dumps({"dataframe_split": {"columns": ["image"], "data": [[image]]}}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", question, {"Content-Type": "application/json"}
    )
    with (folder / "server.log").open("w") as log:
        # A session of its own: the server has a process below it, and both end with the test.
        server = subprocess.Popen(
            call, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            for _ in range(240):
                assert server.poll() is None, (folder / "server.log").read_text()
                try:
                    with urllib.request.urlopen(request, timeout=30) as answer:
                        (row,) = json.load(answer)["predictions"]
                        return dict(row)
                except urllib.error.HTTPError as error:
                    pytest.fail(error.read().decode())
                except OSError:
                    time.sleep(0.5)
            pytest.fail((folder / "server.log").read_text())
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
