"""``report.html`` for the tracking store: without the images of the data, unless they may go there."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from ftexp.files.run_files import REPORT
from ftexp.tracking.tracker import Tracker

# Around everything that shows images of the data or names their files. Names cannot contain these: they are escaped.
PICTURES_BEGIN, PICTURES_END = "<!--pictures-->", "<!--/pictures-->"
NO_PICTURES = (
    "<p>The images are in report.html in the folder of the run. They are sent with tracking.log_images=true.</p>"
)


def log_report(tracker: Tracker, folder: Path, *, log_images: bool) -> None:
    """Copy the page of a run to the tracking store.

    Args:
        folder: of the run, with its page in it.
        log_images: whether the images of the data may be sent.
    """
    if log_images:
        tracker.log_artifact(folder / REPORT)
        return
    with TemporaryDirectory() as place:
        page = Path(place) / REPORT
        page.write_text(without_pictures((folder / REPORT).read_text(encoding="utf-8")), encoding="utf-8")
        tracker.log_artifact(page)
        tracker.flush()


def without_pictures(html: str) -> str:
    """The same page, without what shows images of the data or names their files."""
    before, _, rest = html.partition(PICTURES_BEGIN)
    if not rest:
        return before
    return before + NO_PICTURES + without_pictures(rest.partition(PICTURES_END)[2])
