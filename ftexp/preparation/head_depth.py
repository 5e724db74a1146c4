"""What the last layer gets: the features of the network there alone, or the outputs of all blocks (``head.depth``)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ftexp.config import Config
from ftexp.data.splitting.splits import Splits
from ftexp.errors import ConfigError
from ftexp.finetune.phases import Phase
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import HEAD, Network, Tap
from ftexp.models.depth_head import StandardisedLinear, add_taps
from ftexp.models.taps import TapError, find_taps
from ftexp.preparation.head_solver import bytes_to_solve
from ftexp.probe.depth import MIN_GROUPS, DepthProbe, probe_depth
from ftexp.probe.features import Features, number_groups
from ftexp.training.inputs.features import KnownFeatures, compute_features, gathered, last_layer, why_unsolvable
from ftexp.training.inputs.input_source import InputSource

log = logging.getLogger(__name__)

LAST, ALL = "last", "all"


@dataclass(frozen=True, slots=True)
class Depth:
    """What ``head.depth`` came to.

    Attributes:
        network: the network with its head.
        features: what enters its last layer; None if that took no pass over the images.
        probe: what each block knows; None without a pass, with too few groups to tell, and in a resumed run.
        frozen_engine: what ran the frozen blocks in that pass; None without a pass.
    """

    network: Network
    features: KnownFeatures | None = None
    probe: DepthProbe | None = None
    frozen_engine: str | None = None

    @property
    def chosen(self) -> str:
        """``last`` or ``all``."""
        return ALL if self.network.taps else LAST


def wants_folds(config: Config, phases: Sequence[Phase]) -> bool:
    """Whether ``head.depth`` is decided, or told of, by heads that leave out training images with their copies."""
    solves = phases[0].solved or config.head.init == "solved"
    return config.head.depth == ALL or (config.head.depth == "auto" and solves)


def settle_depth(
    config: Config,
    network: Network,
    splits: Splits,
    phases: Sequence[Phase],
    runtime: Runtime,
    begun_with: str | None = None,
) -> Depth:
    """Give the network the head that ``head.depth`` asks for; all ranks have to call it.

    Args:
        config: the configuration of the run, with a number as batch size.
        network: the network on its device.
        splits: the samples.
        phases: the planned phases.
        runtime: the device and the ranks.
        begun_with: what the run chose when it began, if it is resumed.

    Raises:
        ConfigError: if the outputs of its blocks cannot be taken.
    """
    wanted = begun_with or config.head.depth
    if wanted == LAST or not wants_folds(config, phases):
        return Depth(network)
    num_groups = runtime.ranks.broadcast(lambda: 1 + int(number_groups(splits.train, splits.copies or {}).max()))
    try:
        taps = _taps(config, network, len(splits.train), num_groups if wanted == "auto" else None)
    except TapError as error:
        if wanted == "auto":
            log.info("depth   last: %s (head.depth=auto)", error)
            return Depth(network)
        raise ConfigError(f"head.depth=all is not possible: {error}. Use head.depth=last.") from error
    width = last_layer(network).in_features
    tapped, undo = add_taps(network, taps)
    tapped.module.eval()
    with InputSource(config, tapped, splits, runtime) as source:
        phase = replace(phases[0], learning=(HEAD,), part=None, change=None, solved=True)
        known = compute_features(source, tapped, phase, runtime)
        engine = source.frozen_engine
    rows = known.train.gathered_rows(runtime)
    train = gathered(lambda features: features, known.train, runtime)
    layer = last_layer(tapped)
    assert isinstance(layer, StandardisedLinear)
    layer.set_statistics(*runtime.ranks.broadcast(lambda: _statistics(layer, train)))

    def probe() -> DepthProbe:
        assert train is not None
        return _probe(tapped, layer, *train, rows, splits, config.runtime.seed)

    few = _too_few(num_groups)
    if few and not begun_with:
        log.info("depth   what each block knows is not told: %s", few)
    probed = None if few or begun_with else runtime.ranks.broadcast(probe)
    if wanted == "auto" and probed is not None and not probed.prefers_all:
        undo()
        return Depth(network, known.last(width), probed, engine)
    if network.keeps_rows:
        log.info("head    is newly initialised: the file's rows do not fit a head with head.depth=%s", wanted)
    return Depth(tapped, known, probed, engine)


def _too_few(num_groups: int) -> str | None:
    if num_groups >= MIN_GROUPS:
        return None
    return (
        f"groups and copies make the training images {num_groups} independent ones, and heads that leave out one after "
        f"the other need {MIN_GROUPS}"
    )


def _taps(config: Config, network: Network, num_train: int, groups_to_decide_by: int | None) -> tuple[Tap, ...]:
    """The taps; None of groups if nothing is to be decided, whatever it costs."""
    if (reason := why_unsolvable(network)) is not None:
        raise TapError(reason)
    if groups_to_decide_by is not None and (few := _too_few(groups_to_decide_by)) is not None:
        raise TapError(few)
    taps, layer = find_taps(network), last_layer(network)
    width = layer.in_features + sum(tap.width for tap in taps)
    gib = bytes_to_solve(num_train, width, layer.out_features) / 2**30
    if groups_to_decide_by is not None and gib > config.head.max_gib:
        raise TapError(
            f"{width:,} features of {num_train:,} images would take {gib:.1f} GiB, and "
            f"head.max_gib={config.head.max_gib:g} are allowed"
        )
    return taps


def _statistics(layer: StandardisedLinear, train: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the training images."""
    assert train is not None
    values = layer.unit_length(train[0]).double()
    return values.mean(dim=0).float(), values.std(dim=0, correction=0).float()


def _probe(
    network: Network,
    layer: StandardisedLinear,
    values: Tensor,
    labels: Tensor,
    rows: Sequence[int],
    splits: Splits,
    seed: int,
) -> DepthProbe:
    """Probe the standardised outputs; ``rows`` are the numbers of the training samples, in the order of the values.

    Those of several processes come one process after the other, and what is drawn of them must not depend on it.
    """
    if sorted(rows) != list(rows):
        order = sorted(range(len(rows)), key=rows.__getitem__)
        values, labels, rows = values[order], labels[order], sorted(rows)
    samples = tuple(splits.train[row] for row in rows)
    groups = number_groups(samples, splits.copies or {})
    features = Features(layer.standardise(values), labels, groups, samples, splits.classes)
    blocks = [(tap.block, tap.width) for tap in network.taps]
    own = values.shape[1] - sum(width for _, width in blocks)
    return probe_depth(features, [*blocks, (network.names[-2], own)], seed)
