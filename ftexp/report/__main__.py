"""``python -m ftexp.report RUN``: write the page of a run again, or for the first time."""

from __future__ import annotations

import sys
from pathlib import Path

from ftexp.cli.program import end_program, make_parser

# Images that are classified at once.
BATCH_SIZE = 32


def main(arguments: list[str] | None = None) -> int:
    """Read the command, write the page, and say where it is; returns the exit code."""
    what = "Write report.html, all about a finished run on one page. Its validation images are classified again."
    parser = make_parser("report", what, "outputs/DATE/TIME")
    parser.add_argument("run", help="the folder of a run, or latest")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="data.KEY=VALUE",
        help="settings of the run's data that have changed, such as data.root=NEW/PLACE",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps; the default is that of the run, if it is there")
    given = parser.parse_args(arguments)

    def task() -> int:
        print(report(given.run, given.data, given.device))
        return 0

    return end_program(task, {"The folder of the run": Path(given.run).expanduser().absolute()})


def report(run: str, changes: list[str], device: str | None) -> Path:
    """Write the page of a run.

    Args:
        run: its folder, or ``latest``.
        changes: settings of ``data`` that are different by now.
        device: None: that of the run, if it is there.

    Returns:
        The page.

    Raises:
        UserError: when there is no such run, it has not finished, or its validation images are not there any more.
    """
    from ftexp.inference.engine import NetworkEngine
    from ftexp.inference.load import find_checkpoint
    from ftexp.inference.run_data import RunData
    from ftexp.inference.run_evaluation import open_run
    from ftexp.inference.scoring import labelled, score_images
    from ftexp.report.page.facts import Facts
    from ftexp.report.page.page import write_report

    folder = find_checkpoint(run).parent.parent
    Facts.read(folder)  # raises before the images are classified
    classifier, _ = open_run(str(folder), device)
    assert isinstance(classifier.engine, NetworkEngine), "a run has a network"
    samples = RunData.of(folder, changes).samples("val")
    evaluation = score_images(classifier, labelled(samples), BATCH_SIZE)
    scored = {image.path for image in evaluation.images}
    readable = [sample for sample in samples if sample.path in scored]
    return write_report(folder, classifier.engine.network, readable, evaluation.scores)


if __name__ == "__main__":
    sys.exit(main())
