"""The provenance of a run as tags: code, data, settings, packages."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GIT_SECONDS = 2


def provenance(identity: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a run.

    Args:
        identity: the content of ``run.json``.
    """
    settings = json.dumps(identity["config"], sort_keys=True)
    return {
        **git_state(Path.cwd()),
        "data_digest": identity["data_digest"],
        "split_digest": identity["split_digest"],
        "config_digest": hashlib.blake2b(settings.encode(), digest_size=16).hexdigest(),
        **{f"version.{package}": number for package, number in identity["versions"].items()},
    }


def git_state(folder: Path) -> dict[str, str]:
    """The commit of the git repository that contains a folder, and whether files differ from it; empty without git."""
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return {}
    return {"mlflow.source.git.commit": commit, "git.dirty": str(bool(changes)).lower()}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):  # git is missing, or the repository is on a slow share
        return None
    return ended.stdout.strip() if ended.returncode == 0 else None
