"""``python -m ftexp.calibrate RUN``: choose sets of classes with a coverage, and when not to answer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftexp.cli.program import end_program, make_parser
from ftexp.errors import ConfigError
from ftexp.machine.interpreter import quick_imports

if TYPE_CHECKING:
    from ftexp.inference.calibration import Calibration

WHAT = """Choose sets of classes with a given coverage, and a threshold below which nothing is answered, from the
validation images of a run, and fit its temperature to them, as the run has done unless train.calibrate=false. All of it
goes into calibration.json beside the run's best.pt, which stays as it is; predict, evaluate and export use it. Exit
code: 0; 1 when an argument or the data is wrong; 130 after Ctrl-C."""
EXAMPLE = "outputs/DATE/TIME --coverage 0.95 --accuracy 0.98"


def main(arguments: list[str] | None = None) -> int:
    """Read the command and calibrate; returns the exit code."""
    parser = make_parser("calibrate", WHAT, EXAMPLE)
    parser.add_argument("run", metavar="RUN", help="folder of a run, its best.pt, or latest")
    parser.add_argument(
        "--coverage", metavar="P", type=float, help="share of images whose set of classes holds the true one (0.9)"
    )
    parser.add_argument(
        "--sets",
        choices=("lac", "aps"),
        default="lac",
        help="lac: the smallest sets; aps: sets that grow on difficult images (lac)",
    )
    parser.add_argument(
        "--accuracy",
        metavar="P",
        type=float,
        help="share of the answers above the threshold for abstaining that is right (0.99)",
    )
    parser.add_argument(
        "--data", metavar="KEY=VALUE", nargs="+", default=[], help="where the run's images are by now: data.root=FOLDER"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps (what is there)")
    given = parser.parse_args(arguments)
    return end_program(lambda: _calibrate(given))


def _calibrate(given: argparse.Namespace) -> int:
    for name, share in (("--coverage", given.coverage), ("--accuracy", given.accuracy)):
        if share is not None and not 0 < share < 1:
            raise ConfigError(f"{name} {share:g}: it has to be above 0 and below 1.")
    with quick_imports():
        from ftexp.inference.calibrate import calibrate
        from ftexp.inference.evaluate import evaluate_split
        from ftexp.inference.load import find_checkpoint, load_checkpoint_file
        from ftexp.inference.run_data import RunData

    checkpoint = find_checkpoint(given.run)
    run = RunData.of(checkpoint.parent.parent, given.data)
    # With the engine of predict, in fp32, whose probabilities are to be calibrated.
    classifier = load_checkpoint_file(checkpoint, given.device or "auto")
    evaluation = evaluate_split(classifier, run, "val", None)
    calibration = calibrate(evaluation, checkpoint, given.coverage, given.sets, given.accuracy)
    print("\n".join(_lines(calibration)))
    print(f"files   {calibration.write(checkpoint)}")
    return 0


def _lines(calibration: Calibration) -> Iterator[str]:
    yield f"data    the run's validation split: {calibration.num_samples} images"
    yield f"calib.  temperature {calibration.temperature:.4f}"
    for name, figures in (("before", calibration.uncalibrated), ("after", calibration.calibrated)):
        shown = f"log loss {figures['log_loss']:.4f}, ECE {figures['ece']:.4f}"
        yield f"calib.  {name}: {shown}, adaptive ECE {figures['adaptive_ece']:.4f}, on these images"
    if (sets := calibration.sets) is not None:
        yield (
            f"sets    {sets.method.upper()}, coverage {sets.coverage:g} asked for; {sets.reached_coverage:.4f} reached "
            f"by cross-fitting, with {sets.reached_size:.2f} classes in a set"
        )
    if (abstain := calibration.abstain) is not None:
        yield (
            f"abstain below probability {abstain.threshold:.4f}, for accuracy {abstain.accuracy:g}; by cross-fitting "
            f"{abstain.reached_answered:.1%} of the images are answered, with accuracy {abstain.reached_accuracy:.4f}"
        )


if __name__ == "__main__":
    sys.exit(main())
