"""The pass of the frozen blocks over the images of a split, in pieces that the processes of a run share.

A piece is kept as soon as it is finished, so an interrupted pass goes on where it was. When all pieces are there, they
are joined to one file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from ftexp.data.loading.tensor_file import Kept
from ftexp.data.loading.tensor_store import Append, StoreError, TensorStore
from ftexp.machine.distributed import Ranks
from ftexp.models.block_boundary import layout_of
from ftexp.progress_lines import ProgressLines
from ftexp.training.inputs.batches import BatchContext, ImageBatches
from ftexp.training.inputs.frozen_engine import Engine
from ftexp.training.inputs.pass_share import Share, share_of
from ftexp.training.inputs.prefix_key import engine_digest, images_key
from ftexp.training.whole_batches import whole_batches

log = logging.getLogger(__name__)

# Images of a piece: so few that eight processes share some thousand images evenly.
PIECE = 256
# Rows that are copied at a time when pieces are joined.
JOINED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples that follow each other, from ``start`` up to ``stop``, and the name of their activations."""

    start: int
    stop: int
    key: str


class FrozenPass:
    """Computes the activations of samples, or finds them in the store.

    Args:
        engine: runs the frozen blocks.
        prefix_digest: a name for all that the activations depend on except the images and the engine.
        images: batches of the samples in order, the same in every process; epoch v gives their view v.
        context: the device, the processes, the digests of the images, and the store for activations.
        random: what the random views depend on, if there are several.
    """

    def __init__(
        self, engine: Engine, prefix_digest: str, images: ImageBatches, context: BatchContext, random: str = ""
    ) -> None:
        self._engine = engine
        self._prefix_digest = engine_digest(prefix_digest, engine.name)
        self._images = images
        self._context = context
        self._random = random

    def kept(self, view: int) -> Kept:
        """The activations [N, ...] of a view, with dimensions in the order of memory, and their layout.

        The frozen blocks have to be in eval mode. All processes have to call this, each for the same view.

        Raises:
            StoreError: if they cannot be kept, in all processes alike.
        """
        store, ranks = self._context.activations, self._context.runtime.ranks
        key = self._key(view, 0, self._images.num_samples)
        pieces = cache(partial(self._pieces, view))  # looks at every file: only if something is missing, and once
        get = partial(store.get, key, partial(self._compute, view, pieces))
        if ranks.size == 1 or store.folder is None:
            return get()
        share = share_of(key, store.folder, ranks)
        # Only the first one looks: a network file system would go on telling the others that the file is not there.
        if self._is_in_pieces and ranks.all_reduce_max(share.is_first and not store.holds(key)):
            if share.size == ranks.size or not store.holds(key):  # not on a machine that has it
                self._keep_share(view, share.of(pieces()))
            ranks.all_reduce_max(0)  # wait for the pieces of the others
        return _for_all(get, ranks, share)

    def in_memory(self, view: int) -> Kept:
        """The activations of a view, computed by this process and not kept in the store."""
        return TensorStore(None, 0).get("", partial(_write, self._computed(view, 0, self._images.num_samples)))

    @property
    def is_random(self) -> bool:
        """Whether the views of an image differ."""
        return bool(self._random)

    @property
    def _is_in_pieces(self) -> bool:
        return self._context.activations.folder is not None and self._images.num_samples > PIECE

    def _key(self, view: int, start: int, stop: int) -> str:
        # Which random view an image gets depends on its number, too.
        shown = f"{self._random} {view}" + (f" from {start}" if start else "") if self._random else ""
        samples = self._images.sampler.samples[start:stop]
        return images_key(self._prefix_digest, samples, self._context.digests, shown)

    def _pieces(self, view: int) -> list[Piece]:
        number = self._images.num_samples
        bounds = [(start, min(start + PIECE, number)) for start in range(0, number, PIECE)]
        return [Piece(start, stop, self._key(view, start, stop)) for start, stop in bounds]

    def _keep_share(self, view: int, pieces: Sequence[Piece]) -> None:
        """Compute the pieces of this process."""
        with suppress(StoreError):  # it is met again when this process, or the first one, asks for the whole
            self._keep_missing(view, pieces)

    def _compute(self, view: int, get_pieces: Callable[[], Sequence[Piece]], append: Append) -> Mapping[str, Tensor]:
        """Compute what is missing, and join the pieces; while they are joined, each is removed behind its copy."""
        if not self._is_in_pieces:
            return _write(self._computed(view, 0, self._images.num_samples), append)
        store, notes, pieces = self._context.activations, dict[str, Tensor](), get_pieces()
        self._keep_missing(view, pieces)
        for piece in pieces:
            kept = store.get(piece.key, partial(_write, self._computed(view, piece.start, piece.stop)))
            assert not notes or torch.equal(kept.notes["layout"], notes["layout"]), "one network has one layout"
            notes |= kept.notes
            for rows in torch.split(kept.rows, JOINED_AT_ONCE):
                append(rows)
                kept.release()
            store.remove(piece.key)
        return notes

    def _keep_missing(self, view: int, pieces: Sequence[Piece]) -> None:
        """Compute the pieces that the store lacks; those that follow each other in one go."""
        store = self._context.activations
        missing = [piece for piece in pieces if not store.holds(piece.key)]
        if 0 < len(missing) < len(pieces):
            known = _num_images(pieces) - _num_images(missing)
            log.info("cache   the activations of %d images are there from a pass that was interrupted", known)
        while missing:
            together = [missing.pop(0)]
            while missing and missing[0].start == together[-1].stop:
                together.append(missing.pop(0))
            with closing(self._computed(view, together[0].start, together[-1].stop)) as batches:
                coming = _Regrouped(batches)
                for piece in together:
                    rows = coming.take(piece.stop - piece.start)
                    store.get(piece.key, partial(_write, rows))
                    for _ in rows:  # where another run has kept this piece in the meantime
                        pass
                for _ in batches:  # the end of the epoch, at which decoded images are kept
                    pass

    def _computed(self, view: int, start: int, stop: int) -> Generator[Tensor, None, None]:
        """Run the frozen blocks on the samples from ``start`` up to ``stop``; yields activations [B, ...]."""
        images, runtime = self._images, self._context.runtime
        things = "images" if runtime.ranks.size == 1 else "images of this process"
        progress = ProgressLines("cache", "ran the frozen blocks on", things, stop - start)
        size = images.num_images(0)
        first, end = start // size, -(-stop // size)
        whole = (first, end) == (0, images.num_batches)
        forward = whole_batches(self._engine.open(), None, size, runtime)
        at = first * size
        for inputs, _ in images.epoch(view) if whole else images.part(view, first, end):
            with runtime.autocast():
                activations = forward(inputs)
            yield activations[max(start - at, 0) : stop - at]
            at += len(activations)
            progress.at(at - start)


def _num_images(pieces: Sequence[Piece]) -> int:
    return sum(piece.stop - piece.start for piece in pieces)


def _for_all(get: Callable[[], Kept], ranks: Ranks, share: Share) -> Kept:
    """What every process gets, after the first of those that share it has put it together.

    Raises:
        StoreError: in all processes if one has it, so that all go on in the same way.
    """
    kept, reason = None, "another process of this run cannot keep them"
    for turn in (share.is_first, not share.is_first):
        try:
            kept = get() if turn else kept
        except StoreError as error:
            reason = str(error)
        if ranks.all_reduce_max(turn and kept is None):
            raise StoreError(reason)
    assert kept is not None, "every process had its turn"
    return kept


class _Regrouped:
    """Rows that are computed batch by batch, and taken in other numbers."""

    def __init__(self, batches: Iterator[Tensor]) -> None:
        self._batches = batches
        self._rest: Tensor | None = None

    def take(self, number: int) -> Iterator[Tensor]:
        """Yield the next rows, some at a time."""
        while number > 0:
            rows = next(self._batches) if self._rest is None else self._rest
            part, rest = rows[:number], rows[number:]
            self._rest = rest if len(rest) else None
            number -= len(part)
            yield part


def _write(batches: Iterator[Tensor], append: Append) -> Mapping[str, Tensor]:
    """Append rows with their dimensions in the order of memory; returns the layout, for the way back."""
    layout: tuple[int, ...] = ()
    for rows in batches:
        layout = layout or layout_of(rows)
        append(rows.permute(layout))
    return {"layout": torch.tensor(layout)}
