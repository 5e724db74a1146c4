"""``python -m ftexp.export RUN --format onnx``: a run as one file for another runtime, and how far they agree."""

from __future__ import annotations

import argparse
from pathlib import Path

from ftexp.cli.program import end_program, make_parser
from ftexp.exporting.formats import FORMATS, PRECISIONS
from ftexp.machine.interpreter import quick_imports, run_program

WHAT = (
    "Write a run as one file for another runtime: decoded RGB pixels in (image, uint8 [N, H, W, 3], any number and "
    "size), probabilities out (float32 [N, classes]); transforms, calibration and softmax are inside, class names in "
    "the metadata. Then the whole validation set goes through the run and through the file, and certificate.json "
    "beside the file says how far they agree. safetensors: the weights alone."
)


def main(arguments: list[str] | None = None) -> int:
    """Read the command, export, and certify; returns the exit code."""
    given = _parser().parse_args(arguments)

    def task() -> int:
        with quick_imports():
            from ftexp.exporting.export import Export, export

        return export(
            Export(
                run=given.run,
                format=given.format,
                output=given.output,
                precision=given.precision,
                min_agreement=given.min_agreement,
                calibration_images=given.calibration_images,
                data=tuple(given.data),
            )
        )

    return end_program(task, {"--output": given.output.absolute()} if given.output else None)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("export", WHAT, "outputs/DATE/TIME --format onnx")
    parser.add_argument("run", help="the folder of a run, its best.pt, or latest")
    parser.add_argument("--format", required=True, choices=FORMATS, help="what to write")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: exports/FORMAT-PRECISION/model.* in the run's folder"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="int8: ranges measured on training images; int8_dynamic: measured in every batch, for transformers",
    )
    parser.add_argument(
        "--min-agreement",
        type=float,
        metavar="SHARE",
        help="share of validation images with the same class, below which the exit code is 1; default 0.999 for fp32 "
        "and 0.99 for fp16, for int8 to be given",
    )
    parser.add_argument(
        "--calibration-images", type=int, default=128, metavar="N", help="training images for int8 (default 128)"
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="SETTING",
        help="where the run's images are now, such as data.root=FOLDER",
    )
    return parser


if __name__ == "__main__":
    run_program(main)
