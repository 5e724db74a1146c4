"""What the last layer gets: the features of the network there alone, or the outputs of all blocks (``head.depth``)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ftexp.config import Config
from ftexp.data.splitting.splits import Splits
from ftexp.errors import ConfigError
from ftexp.finetune.phases import Phase
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import HEAD, Network, Tap
from ftexp.models.depth_head import StandardisedLinear, add_taps
from ftexp.models.taps import TapError, find_taps
from ftexp.training.inputs.features import KnownFeatures, compute_features, gathered, last_layer, why_unsolvable
from ftexp.training.inputs.input_source import InputSource

log = logging.getLogger(__name__)


def settle_depth(
    config: Config, network: Network, splits: Splits, phases: Sequence[Phase], runtime: Runtime
) -> tuple[Network, KnownFeatures | None]:
    """Give the network the head that ``head.depth`` asks for; all ranks have to call it.

    Args:
        config: the configuration of the run, with a number as batch size.
        network: the network on its device.
        splits: the samples.
        phases: the planned phases.
        runtime: the device and the ranks.

    Returns:
        The network, and what enters its last layer; None if that took no pass over the images.

    Raises:
        ConfigError: if the outputs of its blocks cannot be taken.
    """
    if config.head.depth == "last":
        return network, None
    tapped, _ = add_taps(network, _taps(network))
    if network.keeps_rows:
        log.info("head    newly initialised: rows of the file of weights do not fit it (head.depth=all)")
    phase = replace(phases[0], learning=(HEAD,), part=None, change=None, solved=True)
    tapped.module.eval()
    with InputSource(config, tapped, splits, runtime) as source:
        known = compute_features(source, tapped, phase, runtime)
    _standardise(tapped, known, runtime)
    log.info(
        "depth   the last layer gets %d features: the averaged outputs of %d blocks and the %d of %s itself "
        "(head.depth=all)",
        last_layer(tapped).in_features,
        len(tapped.taps),
        last_layer(tapped).in_features - sum(tap.width for tap in tapped.taps),
        tapped.name,
    )
    return tapped, known


def _taps(network: Network) -> tuple[Tap, ...]:
    try:
        if (reason := why_unsolvable(network)) is not None:
            raise TapError(reason)
        return find_taps(network)
    except TapError as error:
        raise ConfigError(f"head.depth=all is not possible: {error}. Use head.depth=last.") from error


def _standardise(network: Network, known: KnownFeatures, runtime: Runtime) -> None:
    """Set mean and deviation of the training images in the last layer, the same on all ranks."""
    train = gathered(lambda features: features, known.train, runtime)

    def statistics() -> tuple[Tensor, Tensor]:
        assert train is not None
        values = train[0].double()
        return values.mean(dim=0), values.std(dim=0, correction=0)

    layer = last_layer(network)
    assert isinstance(layer, StandardisedLinear)
    mean, deviation = runtime.ranks.broadcast(statistics)
    with torch.no_grad():
        layer.set_statistics(mean.to(layer.mean), deviation.to(layer.mean))
