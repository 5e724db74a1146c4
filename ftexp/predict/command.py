"""From images and a classifier to rows: in a table, on standard output, and in folders."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import tee
from pathlib import Path

from ftexp.data.places import Place
from ftexp.errors import ConfigError, DataError
from ftexp.inference.classifier import BATCH_SIZE, Classifier
from ftexp.inference.given import GivenImage
from ftexp.predict.display import Counter, rows_on_stdout
from ftexp.predict.images import NamedImages
from ftexp.predict.layout import Layout, printable
from ftexp.predict.resume import alone_at, begin_or_go_on, facts_of
from ftexp.predict.sorting import Sorter
from ftexp.predict.tables import Table, table_at
from ftexp.training.interruption import StopSignals


@dataclass(frozen=True, slots=True)
class Destination:
    """Where predictions go.

    Attributes:
        output: the file of a table, or of Parquet its folder; None: rows on standard output.
        overwrite: begin the table anew where there is one.
        sort_into: in which images are copied into a folder per class; None: they are not.
        link: make links in place of copies.
    """

    output: Path | None = None
    overwrite: bool = False
    sort_into: Path | None = None
    link: bool = False


def predict_images(
    classifier: Classifier,
    images: NamedImages,
    layout: Layout,
    destination: Destination,
    batch_size: int = BATCH_SIZE,
) -> None:
    """Classify images, in the memory of a few batches however many there are, and say at the end what came of it.

    Args:
        layout: the columns.
        destination: of the rows and of copies of the images.
        batch_size: images that are computed at once.

    Raises:
        ConfigError: when the table there is another one's.
        DataError: when not a single image could be read.
        InterruptedRunError: after Ctrl-C or SIGTERM; the table can be gone on with.
    """
    sorter = None
    if destination.sort_into is not None:
        sorter = Sorter(destination.sort_into, classifier.classes, link=destination.link)
        for path in images.paths:
            sorter.refuse_inside(path)
    with ExitStack() as stack:
        stack.enter_context(StopSignals())
        given, table, before = iter(images), None, 0
        if destination.output is not None:
            stack.enter_context(alone_at(destination.output))
            table = table_at(destination.output, layout)
            facts = facts_of(classifier, layout)
            before = begin_or_go_on(table, destination.output, facts, given, overwrite=destination.overwrite)
        counter = Counter(images.total, before, shown=table is not None or not sys.stdout.isatty())
        try:
            with counter:
                _answer(classifier, given, layout, table, sorter, counter, batch_size)
        except KeyboardInterrupt:
            if table is not None:
                rows = f"{before + counter.done:,} row{'s' * (before + counter.done != 1)}"
                print(
                    f"ftexp: {destination.output} has {rows}; run the same command again to continue it.",
                    file=sys.stderr,
                )
            raise
    _conclude(counter, destination)


def _answer(
    classifier: Classifier,
    images: Iterator[GivenImage],
    layout: Layout,
    table: Table | None,
    sorter: Sorter | None,
    counter: Counter,
    batch_size: int,
) -> None:
    shown = rows_on_stdout(layout) if table is None else None
    images, again = tee(images)  # which keeps the few that the classifier has taken ahead
    try:
        for prediction in classifier.stream(images, top_k=layout.top_k, batch_size=batch_size):
            label, image = layout.label(prediction), next(again)
            if sorter is not None and prediction.error is None:
                if image.path is None or not isinstance(image.content, Place):
                    raise ConfigError("--sort-into copies files, and the images of this data set are none.")
                sorter.refuse_inside(image.path)
                sorter.sort(image.path, image.content, label)
            if table is not None:
                table.add(layout.row(prediction))
            elif shown is not None:
                shown.show(prediction)
            counter.count(prediction, label)
    finally:
        for opened in (table, shown):
            if opened is not None:
                opened.close()


def _conclude(counter: Counter, destination: Destination) -> None:
    if not counter.done and counter.before:
        rows = f"{counter.before:,} row{'s' * (counter.before != 1)}"
        print(f"predict {destination.output} is complete: {rows}", file=sys.stderr)
        return
    where = [str(path) for path in (destination.output, destination.sort_into) if path is not None]
    print("  ".join([f"predict {counter.summary()}", *where]), file=sys.stderr)
    for path, error in counter.named:
        print(f"  {printable(path)}: {printable(error)}", file=sys.stderr)
    if counter.unreadable > len(counter.named):
        print(f"  and {counter.unreadable - len(counter.named):,} more", file=sys.stderr)
    if counter.unreadable and counter.unreadable == counter.done and not counter.before:
        path, error = counter.named[0]
        hint = f" A list of images is given as --files-from {path}." if "is text" in error else ""
        raise DataError(f"No image could be read.{hint}")
