"""Whether cuDNN tries its kernels for every size of batch, and takes the fastest (``torch.backends.cudnn.benchmark``).

It does so in runs of many steps. Their number decides, and never measured time, so that equal commands compute alike.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from ftexp.config import Config
from ftexp.finetune.epochs import num_steps
from ftexp.finetune.phases import Phase
from ftexp.machine.device_kinds import KINDS
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.training.compile_choice import blocks_of_step

log = logging.getLogger(__name__)


def choose_kernel_search(
    config: Config, phases: Sequence[Phase], network: Network, num_train: int, runtime: Runtime
) -> None:
    """Let cuDNN search in a run of many steps; a line at debug level and ``run.json`` (``engine``) say what was chosen.

    Steps of a head on cached activations do not count, since they have nothing to search for. Arguments as
    ``choose_compiled``.
    """
    least = KINDS[runtime.device.type].search_steps
    if least is None:
        return
    steps = sum(
        num_steps(phase, network, config.train, num_train, runtime.ranks.size)
        for phase in phases
        if not phase.solved and any(blocks_of_step(phase, config, network))
    )
    searches = steps >= least and not config.runtime.deterministic
    torch.backends.cudnn.benchmark = searches
    word = "on" if searches else "off"
    log.debug("cudnn   benchmark %s: it saves time from %d steps on, and there are %d", word, least, steps)
