"""A trained network with its transforms, class names and calibration: images in, class names and probabilities out."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from ftexp.data.loading.limits import ImageLimits
from ftexp.errors import ConfigError, DataError
from ftexp.inference.calibration import Calibration
from ftexp.inference.engine import Engine, NetworkEngine
from ftexp.inference.given import GivenImage, given_images
from ftexp.inference.predictions import Prediction, Predictions
from ftexp.machine.cores import available_cores
from ftexp.preprocessing import Preprocessing

if TYPE_CHECKING:
    from ftexp.inference.evaluation import Evaluation

BATCH_SIZE = 32
# Batches that are decoded ahead of the one that is computed.
BATCHES_AHEAD = 2

# Images that threads prepare, in order.
Ahead = collections.deque[tuple[GivenImage, Future[Tensor | str]]]


class Classifier:
    """What ``ftexp.load`` gives.

    Args:
        engine: computes probabilities from prepared images.
        classes: their names, in the order of the probabilities.
        preprocessing: the transforms that belong to the weights.
        source: where it was loaded from, such as the path of ``best.pt`` or of an exported file.
        run: the run that trained it, as far as that is known: what ``ftexp.load`` takes.
        calibration: what ``python -m ftexp.calibrate`` found for it; None if it was not calibrated.
        limits: beyond which no file is decoded; None: those that a run has by default.
    """

    def __init__(
        self,
        engine: Engine,
        classes: Sequence[str],
        preprocessing: Preprocessing,
        source: str,
        run: str | None = None,
        calibration: Calibration | None = None,
        limits: ImageLimits | None = None,
    ) -> None:
        self.engine = engine
        self.classes = tuple(classes)
        self.preprocessing = preprocessing
        self.source = source
        self.run = run
        self.calibration = calibration
        self._limits = limits or ImageLimits()

    def __repr__(self) -> str:
        return f"Classifier({len(self.classes)} classes, {self.preprocessing.image_size} px, from {self.source})"

    @property
    def module(self) -> nn.Module:
        """The network: normalised images float32 [B, 3, H, W] -> logits [B, C].

        Raises:
            ConfigError: for an exported file, which has none.
        """
        return self._network_engine("module").network.module

    def predict(
        self, images: object, *, top_k: int = 1, batch_size: int = BATCH_SIZE, device: str | None = None
    ) -> Predictions:
        """Classify images; one that cannot be read is an answer with an error, and ends nothing.

        Args:
            images: a path, a folder, a glob, a URL, a tar or Parquet file or a part of one, the bytes of a file, a PIL
                image, an array [H, W, 3], a tensor [3, H, W], or an iterable of these.
            top_k: how many of the likeliest classes ``Prediction.top`` names.
            batch_size: images that are computed at once.
            device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``, where the network then stays; None: where it is.

        Raises:
            DataError: for a folder or a tar without images, a glob that matches nothing, or a thing that is no image.
            ConfigError: for sizes below 1, or a device that an exported file cannot be moved to.
        """
        return Predictions(self.stream(images, top_k=top_k, batch_size=batch_size, device=device), self.classes)

    def stream(
        self, images: object, *, top_k: int = 1, batch_size: int = BATCH_SIZE, device: str | None = None
    ) -> Iterator[Prediction]:
        """As ``predict``, one answer after the other, in the memory of a few batches however many images there are."""
        if top_k < 1 or batch_size < 1:
            raise ConfigError(f"top_k={top_k} and batch_size={batch_size}: both have to be at least 1.")
        if device is not None:
            self.to(device)
        return self._answers(images, top_k, batch_size)

    def features(self, images: object, *, batch_size: int = BATCH_SIZE) -> npt.NDArray[np.float32]:
        """What the network computes before the last layer of its head, pooled over positions.

        Args:
            images: as of ``predict``.
            batch_size: images that are computed at once.

        Returns:
            float32 [N, D], a row per image in the order given.

        Raises:
            DataError: for an image that cannot be read.
            ConfigError: for an exported file, which gives probabilities only.
        """
        engine = self._network_engine("features")
        rows = []
        for batch in self.prepared(images, batch_size):
            for given, image in batch:
                if isinstance(image, str):
                    raise DataError(image if given.path is None else f"{given.path}: {image}")
            rows.append(engine.features([image for _, image in batch if isinstance(image, Tensor)]))
        return np.concatenate(rows) if rows else np.empty((0, 0), np.float32)

    def evaluate(self, data: object = None, *, split: str | None = None, batch_size: int | None = None) -> Evaluation:
        """Score the classifier on labelled images; classes are matched by their names.

        Args:
            data: a folder with one folder per class, a configuration of ``ftexp.compose("data=…")``, or an iterable of
                images with the names of their classes; None: the images of the run that trained it.
            split: ``val`` or ``test`` of the run (None: ``val``); opening its test split is counted, as a run's own
                opening is. Of other data, a split that it brings; None: all of it.
            batch_size: images that are computed at once; None: as many as the run computed.

        Raises:
            DataError: when there are no such images, or none has a class of the classifier.
            ConfigError: when the run is not known, or has used up its test split.
        """
        from ftexp.inference.evaluate import evaluate  # it needs the configuration's and the data's libraries

        return evaluate(self, data, split, batch_size)

    def to(self, device: str) -> None:
        """Move the network to a device, in place.

        Raises:
            DeviceError: when the device is not there.
            ConfigError: for an exported file, which computes where its runtime does.
        """
        if device != self.engine.device:
            self._network_engine(f"device={device}").to(device)

    def _answers(self, images: object, top_k: int, batch_size: int) -> Iterator[Prediction]:
        for batch in self.prepared(images, batch_size):
            readable = [image for _, image in batch if isinstance(image, Tensor)]
            rows = iter(self.engine.probabilities(readable) if readable else ())
            for given, image in batch:
                if isinstance(image, str):
                    yield Prediction.unreadable(image, given.path)
                else:
                    yield Prediction.of(next(rows), self.classes, top_k, given.path)

    def prepared(self, images: object, batch_size: int) -> Iterator[list[tuple[GivenImage, Tensor | str]]]:
        """Batches of images as the engine takes them, prepared by threads ahead of the batch that is computed.

        Returns:
            Each image, and what the engine takes of it; in place of one that cannot be read, the reason.
        """
        given, ahead = given_images(images), Ahead()
        with ThreadPoolExecutor(available_cores()) as pool:
            try:
                while batch := self._next_batch(given, ahead, pool, batch_size):
                    yield batch
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _next_batch(
        self, given: Iterator[GivenImage], ahead: Ahead, pool: ThreadPoolExecutor, batch_size: int
    ) -> list[tuple[GivenImage, Tensor | str]]:
        most_bytes = self.engine.max_batch_mib * 2**20
        num_ahead = BATCHES_AHEAD * batch_size if most_bytes == math.inf else available_cores()
        batch: list[tuple[GivenImage, Tensor | str]] = []
        num_bytes = 0
        while len(batch) < batch_size and num_bytes < most_bytes:
            ahead.extend((one, pool.submit(self._prepare, one)) for one in islice(given, num_ahead - len(ahead)))
            if not ahead:
                break
            one, future = ahead.popleft()
            prepared = future.result()
            num_bytes += prepared.nbytes if isinstance(prepared, Tensor) else 0
            batch.append((one, prepared))
        return batch

    def _prepare(self, given: GivenImage) -> Tensor | str:
        try:
            return self.engine.prepare(given.open(self.preprocessing.white_level, self._limits))
        except DataError as error:
            return str(error).removeprefix(f"{given.path}: ")

    def _network_engine(self, wanted: str) -> NetworkEngine:
        if not isinstance(self.engine, NetworkEngine):
            raise ConfigError(
                f"{wanted} needs the network, and {self.source} is an exported file, which gives probabilities only. "
                f"Load the run it was exported from: ftexp.load({self.run or 'RUN'!r})."
            )
        return self.engine
