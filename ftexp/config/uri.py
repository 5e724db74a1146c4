"""Checks tracking URIs, and hides the passwords in them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ftexp.errors import ConfigError, nearest

# The environment variable of MLflow; conf/tracking/mlflow.yaml uses its value if tracking.uri is not given.
VARIABLE = "MLFLOW_TRACKING_URI"
SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")

# Greedy, because a password can contain "@" or "/". It is better to hide too much than too little.
_USER_INFO = re.compile(r"(?<=://)[^\s'\"]*@")
_SECRET_FIELD = re.compile(r"\b([\w-]*(?:password|passwd|token|secret)[\w-]*=)[^&\s'\"]+", re.IGNORECASE)


def hide_credentials(text: str) -> str:
    """Replace the user and password of every URI in a text, and the value of every ``password=``, by ``***``."""
    return _SECRET_FIELD.sub(r"\1***", _USER_INFO.sub("***@", text))


def without_credentials(text: str) -> str:
    """Leave out the user and password of every URI in a text."""
    return _USER_INFO.sub("", text)


def uri_as_given(uri: str | None) -> str:
    """The setting for a message, without its password, and with the environment variable that it comes from."""
    source = (
        f" (from the environment variable {VARIABLE})" if uri is not None and os.environ.get(VARIABLE) == uri else ""
    )
    return f"tracking.uri={hide_credentials(uri) if uri is not None else 'null'}{source}"


def check_uri(uri: str) -> None:
    """Refuse a URI that MLflow cannot track to, before anything is loaded.

    Raises:
        ConfigError: for a plain folder (MLflow 3 refuses its file store), for a scheme that MLflow does not have,
            and for a sqlite URI that names no file.
    """
    scheme = uri.partition(":")[0].partition("+")[0]
    hint = "for example sqlite:///mlflow.db or http://127.0.0.1:5000"
    if uri != "databricks" and (":" not in uri or scheme == "file"):
        raise ConfigError(
            f"{uri_as_given(uri)} is a folder, and MLflow 3 does not store runs in folders. "
            f"Give a database or a server, {hint}."
        )
    if scheme not in SCHEMES:
        raise ConfigError(
            f"{uri_as_given(uri)} begins with '{scheme}', which is not a kind of tracking store."
            f"{nearest(scheme, SCHEMES)} Allowed are {', '.join(SCHEMES)}; {hint}."
        )
    if scheme == "sqlite" and not re.match(r"sqlite:///[^?:]", uri):
        raise ConfigError(
            f"{uri_as_given(uri)} names no file. Write sqlite:///FILE for a file in the working folder, "
            "sqlite:////FOLDER/FILE for one elsewhere."
        )


def sqlite_file(uri: str, folder: Path | None = None) -> Path | None:
    """The absolute path of the database file behind a sqlite URI; None for any other store.

    Args:
        folder: from which a relative path is taken; None: the working folder.
    """
    if not uri.startswith("sqlite:///"):
        return None
    return (folder or Path.cwd()).absolute() / os.path.expanduser(uri.removeprefix("sqlite:///").partition("?")[0])


def at_home(url: str) -> str:
    """Expand ``~`` in the URL of a file, such as ``sqlite:///~/x.db``; other URLs are returned unchanged."""
    scheme, sign, path = url.partition(":///")
    return f"{scheme}{sign}{os.path.expanduser(path)}"
