"""What runs the frozen blocks of a run (``runtime.frozen_engine``): the same in all its phases and when resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ftexp.config import Config
from ftexp.finetune.phases import Phase
from ftexp.machine.runtime import Runtime
from ftexp.models.block_boundary import SplitError
from ftexp.models.blocks import Network
from ftexp.models.prefix import Prefix, split
from ftexp.training.inputs.frozen_engine import choose_engine, engine_of, is_possible
from ftexp.training.inputs.input_source import activation_store
from ftexp.training.inputs.prefix_cache import why_views_differ
from ftexp.training.inputs.prefix_key import EAGER, ONNXRUNTIME, prefix_digest


def settle_engine(
    config: Config,
    network: Network,
    phases: Sequence[Phase],
    num_images: int,
    runtime: Runtime,
    begun_with: str | None = None,
) -> Config:
    """The configuration with ``eager`` or ``onnxruntime`` in the place of ``auto``.

    Args:
        config: the configuration of the run.
        network: the network.
        phases: the planned phases.
        num_images: number of training and validation images.
        runtime: the device and the precision.
        begun_with: the engine of the run, if it is resumed.

    Raises:
        DeviceError: see ``choose_engine``.
    """
    asked: str = config.runtime.frozen_engine
    if asked == "auto" and begun_with is not None:
        asked = begun_with if is_possible(runtime) else EAGER
    blocks = max((network.names.index(phase.learning[0]) for phase in _cached(config, phases)), default=0)
    return _with(config, choose_engine(asked, num_images, blocks, runtime))


def confirm_engine(
    config: Config, network: Network, phases: Sequence[Phase], runtime: Runtime, used: str | None
) -> Config:
    """The configuration with ``eager`` if ONNX Runtime cannot run the frozen blocks of this network.

    Args:
        config: what ``settle_engine`` gave.
        network: the network that is trained.
        phases: the planned phases.
        runtime: the device and the precision.
        used: what ran them in a pass before training; None: there was none, and they are exported now.
    """
    cut = [phase.learning[0] for phase in _cached(config, phases) if phase.learning[0] != network.names[0]]
    if config.runtime.frozen_engine == EAGER or used is not None or not cut:
        return _with(config, used or (config.runtime.frozen_engine if cut else EAGER))
    try:
        prefix, _ = split(network, cut[0])
    except SplitError:  # nothing is cached, and the log of the phase says so
        return _with(config, EAGER)
    assert isinstance(prefix, Prefix)
    frozen, store = prefix_digest(network, cut[0], runtime), activation_store(config.runtime)
    return _with(config, engine_of(config.runtime.frozen_engine, network, prefix, frozen, store).name)


def _cached(config: Config, phases: Sequence[Phase]) -> list[Phase]:
    return [phase for phase in phases if config.runtime.cache != "off" and why_views_differ(phase.augment) is None]


def _with(config: Config, engine: str) -> Config:
    return replace(config, runtime=replace(config.runtime, frozen_engine=EAGER if engine == EAGER else ONNXRUNTIME))
