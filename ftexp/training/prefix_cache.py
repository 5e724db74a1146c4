"""The frozen prefix computed once: training on its kept activations instead of pushing images through it every epoch.

Blocks before the first learning one keep their weights and are in eval mode, so what they make of a view of an image
is the same in every epoch, phase and trial. None of it is used where that does not hold.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping

import torch

from ftexp.config import AugmentConfig
from ftexp.data.digests import ContentDigests
from ftexp.data.sending import send_parts
from ftexp.data.tensor_file import Kept
from ftexp.data.tensor_store import Append, StoreError, TensorStore
from ftexp.models.boundary import SplitError, layout_of, trial_images
from ftexp.models.prefix import Prefix, split
from ftexp.training.batches import ImageBatches, Inputs
from ftexp.training.prefix_key import images_key, prefix_digest
from ftexp.training.runtime import Runtime

log = logging.getLogger(__name__)

# augment.views=auto: fewer cost accuracy (benchmarks/results.md, "Views of an image"), more cost time.
AUTO_VIEWS = 8

Release = Callable[[], None]


class CachedBatches:
    """Batches of kept activations, of the same samples in the same order as the images they stand for.

    Args:
        activations: by view, of the samples in their order.
        views: epoch e uses view e modulo this.
        images: what they stand for; gives the labels, and the samples of each batch.
    """

    def __init__(self, activations: PrefixViews, views: int, images: ImageBatches, runtime: Runtime) -> None:
        self._activations = activations
        self._views = views
        self._labels = images.labels.to(runtime.device)
        self._own_indices = images.own_indices
        self.num_images = images.num_images
        self.num_batches = images.num_batches
        self.paths = images.paths
        self.num_samples = images.num_samples
        self.device = runtime.device

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The activations and labels of one epoch, in that epoch's order, from batch ``start`` on."""
        rows = self._activations.of_view(epoch % self._views)
        batches = self._own_indices(epoch)[start:]
        for of_rows, of_labels in zip(send_parts(batches, rows.device), send_parts(batches, self.device), strict=True):
            activations = rows.take(of_rows).to(self.device, non_blocking=True)
            yield activations, self._labels.index_select(0, of_labels)

    def close(self) -> None:
        """Let go of the activations."""
        self._activations.close()


class PrefixViews:
    """What the prefix makes of some samples, one view after the other, each when it is first asked for.

    Args:
        in_order: the samples unshuffled; its epoch v shows their view v.
        digests: of the images.
        random: what the views follow from, where there are several.
    """

    def __init__(
        self,
        prefix: Prefix,
        frozen: str,
        in_order: ImageBatches,
        store: TensorStore,
        digests: ContentDigests,
        random: str = "",
    ) -> None:
        self._prefix = prefix
        self._frozen = frozen
        self._in_order = in_order
        self._store = store
        self._digests = digests
        self._random = random
        self._opened: dict[int, _Rows] = {}
        self.num_found = 0

    @property
    def num_bytes(self) -> int:
        """Of one view, at most."""
        return self._prefix.bytes_per_image * self._in_order.num_samples

    def of_view(self, view: int) -> _Rows:
        """The activations of a view; to be called with the frozen blocks in eval mode."""
        if view not in self._opened:
            try:
                self.open(view)
            except StoreError:  # said by the store; training has begun on activations, and goes on with them
                kept = TensorStore(None, 0).get("", lambda append: self._compute(view, append))
                return self._rows(kept)  # for this epoch alone: all views would be too much for the memory
        return self._opened[view]

    def close(self) -> None:
        """Let go of all views."""
        self._opened.clear()

    def open(self, view: int) -> None:
        """Have the activations of a view kept.

        Raises:
            StoreError: when they cannot be.
        """
        started = time.perf_counter()
        shown = f"{self._random} {view}" if self._random else ""
        key = images_key(self._frozen, self._in_order.samples, self._digests, shown)
        kept = self._store.get(key, lambda append: self._compute(view, append))
        self.num_found += kept.found
        self._opened[view] = self._rows(kept)
        if self._random:
            how, seconds = "had run before" if kept.found else "ran once", time.perf_counter() - started
            log.info("cache   view %d: the frozen blocks %s, %.1f s", view, how, seconds)

    def _rows(self, kept: Kept) -> _Rows:
        return _Rows(kept.rows, kept.notes["layout"], kept.release, self._in_order.runtime)

    @torch.no_grad()
    def _compute(self, view: int, append: Append) -> Mapping[str, torch.Tensor]:
        layout: tuple[int, ...] = ()
        for images, _ in self._in_order.epoch(view):
            with self._in_order.runtime.autocast():
                activations = self._prefix(images)
            # Rows are kept as they lie in memory, and handed out in the layout they came in.
            layout = layout or layout_of(activations)
            append(activations.permute(layout))
        return {"layout": torch.tensor(layout)}


class _Rows:
    """Activations in the layout the network made them in, on the device where there is room, else in the map."""

    def __init__(self, rows: torch.Tensor, layout: torch.Tensor, release: Release, runtime: Runtime) -> None:
        order = layout.tolist()
        self._back = tuple(order.index(dim) for dim in range(len(order)))
        self._rows = rows.to(runtime.device) if runtime.memory.take(rows.nbytes) else rows
        self._release = release
        self.num_bytes = rows.nbytes
        self.device = self._rows.device

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        """The rows of some samples, [B, ...]; the indices have to be on the rows' device."""
        rows = self._rows.index_select(0, indices).permute(self._back)
        self._release()
        return rows


def cache_prefix(
    inputs: Inputs,
    first_learning_block: str,
    in_order: tuple[ImageBatches, ImageBatches],
    store: TensorStore,
    digests: ContentDigests,
    augment: AugmentConfig,
    epochs: int,
    seed: int,
) -> Inputs:
    """Run the frozen prefix once over train and validation, if it can be cut off and its activations fit.

    To be called with the frozen blocks in eval mode.

    Args:
        inputs: the whole network on images.
        first_learning_block: the prefix is everything before it.
        in_order: the images of training and validation, unshuffled and whole on every rank, of which the first one
            computes the activations; epoch v of training shows view v.
        digests: of the images.
        augment: how many views there are, and what they follow from beside ``seed``.
        epochs: of the phase; more views are never needed.

    Returns:
        The suffix on activations; ``inputs`` as they were where caching is not possible, with a line saying why.
    """
    network, runtime = inputs.network, inputs.runtime
    started = time.perf_counter()
    assert isinstance(inputs.train, ImageBatches)
    assert isinstance(inputs.val, ImageBatches)
    try:
        prefix, suffix = split(network, first_learning_block)
        assert isinstance(prefix, Prefix)
        if prefix.rows_per_image != 1:
            raise SplitError(f"{prefix.rows_per_image} rows per image enter {first_learning_block}, not one")
        if prefix.draws(trial_images(network)[0]):
            raise SplitError(
                f"{network.name} has dropout before {first_learning_block}, which is drawn anew every time"
            )
        frozen = prefix_digest(network, first_learning_block, runtime)
        random = f"{augment.image_changes()} {seed}" if augment.changes_images else ""
        train = PrefixViews(prefix, frozen, in_order[0], store, digests, random)
        val = PrefixViews(prefix, frozen, in_order[1], store, digests)
        views = _choose_views(augment, epochs, train.num_bytes, store.limit_bytes - val.num_bytes, first_learning_block)
    except SplitError as reason:
        log.info("cache   off: %s", reason)
        return inputs
    unkept = not (_can_open(val) and (bool(random) or _can_open(train)))
    if runtime.ranks.largest(unkept):  # on whichever rank
        return inputs
    num_bytes = val.of_view(0).num_bytes
    if random:
        log.info("cache   %d views of every training image (augment.views=%s)", views, augment.views)
    else:
        num_bytes += train.of_view(0).num_bytes
        anything_new = runtime.ranks.largest(train.num_found + val.num_found < 2)  # on whichever rank
        log.info(
            "cache   the frozen blocks before %s %s, %.1f s; their activations take %.1f MiB",
            first_learning_block,
            "ran once" if anything_new else "had run before on these images",
            time.perf_counter() - started,
            num_bytes / 2**20,
        )
    batches = CachedBatches(train, views, inputs.train, runtime), CachedBatches(val, 1, inputs.val, runtime)
    return Inputs(network, suffix, *batches, runtime, inputs.loss)


def _can_open(views: PrefixViews) -> bool:
    """Have the first view kept, if it can be; where not, the store has said why."""
    try:
        views.open(0)
    except StoreError:
        return False
    return True


def _choose_views(augment: AugmentConfig, epochs: int, num_bytes: int, room_bytes: int, block: str) -> int:
    """How many views are kept.

    Raises:
        SplitError: if they do not fit.
    """
    views = 1 if not augment.changes_images else augment.num_views or min(AUTO_VIEWS, epochs)
    missing = views * num_bytes - room_bytes
    if missing > 0:
        raise SplitError(
            f"the activations before {block} would take {missing / 2**30:.1f} GiB more (runtime.cache_gib)"
        )
    return views
