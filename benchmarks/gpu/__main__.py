"""Everything that only a GPU can show, by one command, in parts that survive an interruption.

    python -m benchmarks.gpu [--out gpu_results] [--data FOLDER] [--parts first_step step ...] [--minutes 8]
                             [--python PYTHON] [--dry]
    python -m benchmarks.gpu --list
    python -m benchmarks.gpu --prepare FOLDER [--packages hydra-core ...] [--python-version 3.12] [--data FOLDER]

Each part is one or more commands, which run as processes; what a command has printed and its rows are in ``--out`` as
soon as it ends, and the same command goes on with what is missing. A part that takes more than ``--minutes`` is cut;
the next call goes on with the command that was cut, and that one with what its log lacks, if it keeps one. When all
parts are there, their rows are appended to benchmarks/results.md, and ``results.json`` in ``--out`` has them all.
``--list`` names the parts, and for each of them the packages that this machine lacks: such a part is left out, and the
reason is in its file. What is worth the most comes first; all parts may take half an hour of an H100 or H200.

``--data`` has a folder a class of real images, for the accuracy in bf16 and fp32; without it, the handwritten digits
are used. ``--python`` is the interpreter of the other frameworks. ``--dry`` runs all parts at tiny sizes on the CPU, to
test the command itself.

``--prepare`` is for a machine with a GPU, but without a network: it writes the wheels that such a machine often lacks,
ftexp's own and the images into a folder. On that machine, ``sh FOLDER/run.sh`` installs them and starts this command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.carry import CARRIED, prepare
from benchmarks.gpu.outcomes import collect, run_part
from benchmarks.gpu.parts import DRY, FULL, PARTS, Setting, lacking
from benchmarks.processes import interpreter, terminated_as_interrupted


def main(given: Sequence[str] | None = None) -> int:
    """Run the parts that are missing; 1 if one failed or was cut."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_results"))
    parser.add_argument("--data", type=Path, help="a folder of images for each class")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=8.0, help="the longest time of one part")
    parser.add_argument("--python", type=interpreter, default=Path(sys.executable), help="of the other frameworks")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--list", action="store_true", help="name the parts and what they lack here")
    parser.add_argument("--prepare", type=Path, help="the folder to carry to a machine without a network")
    parser.add_argument("--packages", nargs="+", default=list(CARRIED))
    parser.add_argument("--python-version", default=f"{sys.version_info.major}.{sys.version_info.minor}")
    parser.add_argument("--results", type=Path, help="instead of benchmarks/results.md")
    arguments = parser.parse_args(given)
    if arguments.prepare is not None:
        prepare(arguments.prepare, arguments.packages, arguments.python_version, arguments.data)
        return 0
    out = arguments.out.resolve()
    data = None if arguments.data is None else arguments.data.resolve()
    setting = Setting(out, data, arguments.python, DRY if arguments.dry else FULL)
    if arguments.list:
        for name, part in PARTS.items():
            missing = lacking(part, setting)
            print(f"{name:18} {part.what}" + (f"; left out, it lacks {', '.join(missing)}" if missing else ""))
        return 0
    out.mkdir(parents=True, exist_ok=True)
    with terminated_as_interrupted():
        ended = {name: run_part(name, PARTS[name], setting, 60 * arguments.minutes) for name in arguments.parts}
    return collect(ended, setting, arguments.results)


if __name__ == "__main__":
    raise SystemExit(main())
