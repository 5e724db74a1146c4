"""What a job of Hydra's launcher came to."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import Any

from ftexp.config.uri import hide_credentials


def outcome(job_return: Any) -> tuple[Any, str | None]:
    """What a job returned and None; or, when it failed, None and why, without passwords.

    Args:
        job_return: Hydra's ``JobReturn``.
    """
    try:
        with redirect_stderr(io.StringIO()):  # Hydra writes a line of its own there before it raises; ours says more
            return job_return.return_value, None
    except Exception as error:
        return None, hide_credentials(f"{type(error).__name__}: {error}")
