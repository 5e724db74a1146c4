"""The result of a job of Hydra's launcher."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import Any

from ftexp.config.uri import hide_credentials


def outcome(job_return: Any) -> tuple[Any, str | None]:
    """The return value of a job and None or, if it failed, None and the reason without passwords.

    Args:
        job_return: Hydra's ``JobReturn``.
    """
    try:
        with redirect_stderr(io.StringIO()):  # Hydra prints a line before it raises; our message says more
            return job_return.return_value, None
    except Exception as error:
        return None, hide_credentials(f"{type(error).__name__}: {error}")
