"""ftexp's parameter groups and its cut before a block, for a network and a training loop of your own.

``ftexp.param_groups`` and ``ftexp.split_network`` are these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from ftexp.config import AugmentConfig, BatchNormPolicyConfig, SchedulerConfig
from ftexp.config.optim import AdamWConfig
from ftexp.errors import ConfigError
from ftexp.finetune.param_groups import build_param_groups
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import Block, Network
from ftexp.models.derived_blocks import blocks_of, head_of
from ftexp.models.prefix import split
from ftexp.preprocessing import Preprocessing

# Name of a block -> the paths of its modules and loose parameters.
Blocks: TypeAlias = Mapping[str, Sequence[str]]


def param_groups(
    module: nn.Module,
    *,
    head_lr: float = 1e-3,
    backbone_lr: float = 5e-4,
    block_decay: float = 0.7,
    block_lrs: Mapping[str, float] | None = None,
    weight_decay: float = 1e-2,
    blocks: Blocks | None = None,
    head: str | None = None,
) -> list[dict[str, Any]]:
    """Group the parameters of a network for discriminative learning rates, for any optimizer of torch.

    A block that is farther from the head by one learns ``block_decay`` times as fast. Norms, biases and other
    one-dimensional parameters get no weight decay. Parameters that do not require a gradient are left out.

    Args:
        module: the network, of any library.
        head_lr: the learning rate of the head.
        backbone_lr: the learning rate of the block next to the head.
        block_decay: the factor for every further block, above 0 and at most 1.
        block_lrs: block -> its learning rate, where another one is wanted.
        weight_decay: of matrices and kernels.
        blocks: block -> paths of its modules, from the stem to the last one, without the head; None: they are derived
            from the groups that timm keeps for its models, and from the modules of the network otherwise.
        head: the path of the classifying layer; None: the last linear layer.

    Returns:
        Dicts with the keys ``params``, ``lr``, ``weight_decay``, and for your own use ``block`` and ``role``; no
        parameter is in two of them.

    Raises:
        ConfigError: for rates that are not allowed, for blocks that do not cover the network, or where they cannot be
            derived.
    """
    network = _network(module, blocks, head, image_size=1)
    optimizer = AdamWConfig(
        head_lr=head_lr,
        backbone_lr=backbone_lr,
        block_decay=block_decay,
        block_lrs=dict(block_lrs or {}),
        weight_decay=weight_decay,
    )
    for block in optimizer.block_lrs:
        network.paths(block)  # refuses a name that no block has
    phase = Phase(
        name="all",
        epochs=1,
        learning=network.names,
        optimizer=optimizer,
        scheduler=SchedulerConfig(name="constant", floor=1.0),
        bn_policy=BatchNormPolicyConfig(update_running_statistics=True, train_affine_parameters=True),
        augment=AugmentConfig(),
    )
    return [
        {
            "params": list(group.parameters),
            "lr": group.lr,
            "weight_decay": group.weight_decay,
            "block": group.block,
            "role": group.role,
        }
        for group in build_param_groups(network, phase)
    ]


def split_network(
    module: nn.Module,
    first_block: str,
    *,
    image_size: int = 224,
    blocks: Blocks | None = None,
    head: str | None = None,
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Cut a network in front of a block, so that what the frozen part makes of an image can be kept.

    Args:
        module: the network, of any library; its frozen part has to be in eval mode whenever it runs.
        first_block: the first block that learns; ``head`` leaves the second half the head alone.
        image_size: the side of images that the network takes, in pixels; the cut is checked with two of them.
        blocks: as of ``param_groups``.
        head: as of ``param_groups``.

    Returns:
        Prefix and suffix: ``suffix(prefix(images))`` are the logits [B, C] of images [B, 3, H, W], to the last bit on
        the CPU. The prefix records no gradients; the suffix does.

    Raises:
        SplitError: when more than one tensor crosses there, so that the network cannot be cut.
        ConfigError: when there is no such block, for blocks that do not cover the network, or where they cannot be
            derived.
    """
    return split(_network(module, blocks, head, image_size), first_block)


def _network(module: nn.Module, blocks: Blocks | None, head: str | None, image_size: int) -> Network:
    name = type(module).__name__
    path = head or head_of(module)
    layer = module.get_submodule(path) if path in dict(module.named_modules()) else None
    if layer is None:
        raise ConfigError(f"head={path!r}: {name} has no such module.")
    derived = tuple(Block(block, tuple(paths)) for block, paths in blocks.items()) if blocks else None
    return Network(
        module,
        derived or blocks_of(module, path),
        head=path,
        preprocessing=Preprocessing(image_size, image_size, "bilinear", (0.5,) * 3, (0.5,) * 3),
        name=name,
        num_classes=getattr(layer, "out_features", 0),
    )
