"""No pinned version has a hole that is known to us; a part of ``make check``, and needs no network.

The list is as good as the day it was last looked at. It names what handles files, archives and requests of strangers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"

# Package -> the first version without the hole, and its name in cve.org's list.
FIXED_IN = {
    "torch": ("2.6.0", "CVE-2025-32434: torch.load(weights_only=True) executes code"),
    "pillow": ("10.3.0", "CVE-2024-28219: buffer overflow in _imagingcms"),
    "pyarrow": ("14.0.1", "CVE-2023-47248: reading IPC or Parquet files executes code"),
    "requests": ("2.32.4", "CVE-2024-47081: credentials from .netrc go to another host"),
    "urllib3": ("2.5.0", "CVE-2025-50181: redirects are followed where they were switched off"),
    "jinja2": ("3.1.6", "CVE-2025-27516: a template leaves its sandbox"),
    "werkzeug": ("3.0.6", "CVE-2024-49767: a form fills the memory"),
    "h11": ("0.16.0", "CVE-2025-43859: requests are smuggled through chunked bodies"),
    "protobuf": ("6.31.1", "CVE-2025-4565: nested messages overflow the stack"),
    "gitpython": ("3.1.41", "CVE-2024-22190: a git beside the project is executed"),
    "cryptography": ("44.0.1", "CVE-2024-12797: raw public keys are not checked"),
}


def pinned() -> dict[str, Version]:
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if line and not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    return {r.name.lower(): Version(str(r.specifier).removeprefix("==")) for r in requirements}


@pytest.mark.parametrize("package", FIXED_IN)
def test_the_pin_is_past_the_hole(package: str) -> None:
    version, (fixed, hole) = pinned().get(package), FIXED_IN[package]
    assert version is None or version >= Version(fixed), f"{package}=={version}: {hole}; fixed in {fixed}"


def test_most_of_the_list_is_really_pinned() -> None:
    assert len(pinned().keys() & FIXED_IN.keys()) >= len(FIXED_IN) - 2
