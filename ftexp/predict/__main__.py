"""``python -m ftexp.predict RUN PATHS…``: classify any number of images with a trained network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ftexp.cli.program import end_program, make_parser
from ftexp.errors import ConfigError
from ftexp.machine.interpreter import quick_imports, run_program

WHAT = """Classify images with a trained network. A file that cannot be read is a row with an error, and ends nothing.
Exit code: 0; 1 when no image at all could be read, or an argument is wrong; 130 after Ctrl-C. The same command goes on
with an --output that was broken off."""
CALIBRATED = "calibrated"
EXAMPLE = "outputs/DATE/TIME photos/ --output predictions.csv --top-k 3"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command and predict; returns the exit code."""
    given = _parsed(sys.argv[1:] if arguments is None else arguments)
    places = {"--output": _path(given.output), "--sort-into": _path(given.sort_into)}
    return end_program(lambda: _predict(given), {name: path.absolute() for name, path in places.items() if path})


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("predict", WHAT, EXAMPLE)
    parser.add_argument(
        "run", metavar="RUN", help="folder of a run, checkpoint, exported file, latest, models:/NAME@best or runs:/ID"
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="file, folder (with all below it), glob, URL, tar or Parquet file (all images in it) or part of one; - is "
        "a list on standard input, a name per line; behind -- names may begin with -",
    )
    parser.add_argument("--files-from", metavar="FILE", help="a text file that names one image per line")
    parser.add_argument(
        "--data",
        metavar="KEY=VALUE",
        nargs="+",
        default=[],
        help="the images of a data set, as for a run: data=manifest data.file=FILE data.root=FOLDER",
    )
    _add_answers(parser)
    parser.add_argument("--batch-size", metavar="N", type=int, default=32, help="images that are computed at once (32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (auto)")
    parser.add_argument("--trust", action="store_true", help="load a .pt2 file, which may execute code")
    # What stands behind -- is never an option. Before it, options and paths may be mixed.
    at = list(arguments).index("--") if "--" in arguments else len(arguments)
    given = parser.parse_intermixed_args(list(arguments[:at]))
    given.paths += arguments[at + 1 :]
    return given


def _add_answers(parser: argparse.ArgumentParser) -> None:
    """The options of what is answered, and where."""
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="a table: .csv, .tsv, .jsonl (JSON lines) or .parquet (a folder of part files); without it, rows on "
        "standard output",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="begin an --output anew that exists, in place of going on with it"
    )
    parser.add_argument(
        "--top-k",
        metavar="K",
        type=int,
        default=1,
        help="likeliest classes in a row: label, probability, label_2, probability_2, ... (1)",
    )
    parser.add_argument("--probabilities", action="store_true", help="a column p(CLASS) for every class")
    parser.add_argument(
        "--threshold",
        metavar="P",
        help="leave the label empty where its probability is below P; the column likeliest then has it; calibrated: as "
        "python -m ftexp.calibrate RUN --accuracy A chose it",
    )
    parser.add_argument(
        "--sort-into",
        metavar="FOLDER",
        help="copy each image into FOLDER/CLASS (below the threshold: FOLDER/below_threshold); nothing is moved or "
        "overwritten",
    )
    parser.add_argument(
        "--link",
        action="store_true",
        help="of --sort-into: hard links in place of copies, where the file system has them",
    )


def _predict(given: argparse.Namespace) -> int:
    if given.link and not given.sort_into:
        raise ConfigError("--link belongs to --sort-into, which is not given.")
    if given.threshold not in (None, CALIBRATED):
        given.threshold = _probability(given.threshold)
    if given.data and not any(setting.startswith("data=") for setting in given.data):
        raise ConfigError("--data names no data set: begin with data=manifest, data=webdataset or another source.")
    if given.overwrite and not given.output:
        raise ConfigError("--overwrite belongs to --output, which is not given.")
    with quick_imports():  # torch takes seconds: it is imported once the arguments are known to be good
        from ftexp.inference.calibration import threshold_of
        from ftexp.inference.load import load
        from ftexp.inference.run_evaluation import other_data
        from ftexp.predict.command import Destination, predict_images
        from ftexp.predict.images import NamedImages
        from ftexp.predict.layout import Layout
        from ftexp.predict.tables import kind_of

    output, sort_into = _path(given.output), _path(given.sort_into)
    if output is not None:
        kind_of(output)
    samples = other_data(given.data, None)[1] if given.data else ()
    images = NamedImages(given.paths, given.files_from, samples)
    classifier = load(given.run, device=given.device, trust=given.trust)
    calibrated = given.threshold == CALIBRATED
    threshold = threshold_of(classifier.calibration, classifier.source) if calibrated else given.threshold
    layout = Layout(classifier.classes, given.top_k, threshold, given.probabilities)
    destination = Destination(output, given.overwrite, sort_into, given.link)
    predict_images(classifier, images, layout, destination, given.batch_size)
    return 0


def _probability(given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(f"--threshold {given}: give a probability, from 0 to 1, or {CALIBRATED}.")
    return value


def _path(given: str | None) -> Path | None:
    return None if given is None else Path(given).expanduser()


if __name__ == "__main__":
    run_program(main)
