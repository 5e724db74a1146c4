"""Writes the tables of the benchmarks to benchmarks/results.md, one section each."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import timm
import torch

RESULTS = Path(__file__).with_name("results.md")


def machine() -> str:
    """Processor, threads and load average, which shows whether other programs were running."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} threads, load {os.getloadavg()[0]:.1f}"


def hardware(device: str) -> str:
    """The name of the GPU, or ``cpu``."""
    return torch.cuda.get_device_name() if device == "cuda" else device


def versions() -> str:
    """The versions of Python and the packages that the figures depend on."""
    return f"torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}"


def append_rows(section: str, rows: Sequence[Mapping[str, object]], path: Path = RESULTS) -> None:
    """Add rows to the table under ``## section`` that has their columns; a missing section or table is created."""
    text = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
    columns = list(rows[0])
    heading = [_line(columns), _line("---" for _ in columns)]
    lines = [_line(str(row[column]) for column in columns) for row in rows]
    before, found, after = text.partition(f"\n## {section}\n")
    if not found:
        text = "\n".join([text.rstrip("\n"), "", f"## {section}", "", *heading, *lines, ""])
    else:
        section_text, separator, rest = after.partition("\n## ")
        there = section_text.rstrip("\n").split("\n")
        if heading[0] in there:
            end = there.index(heading[0])
            while end < len(there) and there[end].startswith("|"):
                end += 1
            there[end:end] = lines
        else:
            there += ["", *heading, *lines]
        text = before + found + "\n".join([*there, ""]) + (separator and "\n## ") + rest
    path.write_text(text, encoding="utf-8")


def read_rows(path: Path) -> dict[str, list[dict[str, str]]]:
    """Read back what ``append_rows`` wrote: section -> its rows."""
    sections: dict[str, list[dict[str, str]]] = {}
    for section in path.read_text(encoding="utf-8").split("\n## ")[1:]:
        title, *lines = section.splitlines()
        columns, _, *rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines if line]
        sections[title] = [dict(zip(columns, row, strict=True)) for row in rows]
    return sections


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
