"""A headless browser, where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Visit:
    """What a browser made of a page. ``console``: its messages; ``requests``: what it asked for, the page included."""

    html: str
    console: list[str]
    requests: set[str]


def visit(page: Path, folder: Path) -> Visit:
    """Open a page; skips the test where there is no browser."""
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip(f"there is no browser: none of {', '.join(NAMES)}")
    log = folder / "net.json"
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-logging=stderr"]
    options += [f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", "--headless", "--dump-dom"]
    ended = subprocess.run(
        [browser, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=False, cwd=folder
    )
    assert ended.returncode == 0, ended.stderr
    console = [line for line in ended.stderr.splitlines() if ":CONSOLE" in line]
    events = json.loads(log.read_text())["events"]
    urls = {event["params"]["url"] for event in events if "url" in event.get("params", {})}
    return Visit(ended.stdout, console, urls)
