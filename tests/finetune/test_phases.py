from __future__ import annotations

import pytest
from conftest import Compose

from ftexp.cli.messages import explain
from ftexp.finetune.phases import plan_phases

NAMES = ("stem", "layer1", "layer2", "layer10", "head")


def plan(configure: Compose, *overrides: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(phase.name, phase.learning) for phase in plan_phases(configure(*overrides), NAMES)]


@pytest.mark.parametrize(
    ("overrides", "planned"),
    [
        (["stage=head"], [("head", ("head",))]),
        (["stage=partial"], [("partial", ("layer10", "head"))]),
        (["stage=partial", "stage.last_blocks=4"], [("partial", NAMES)]),
        (["stage=full"], [("full", NAMES)]),
        (["stage=blocks", "stage.blocks=[layer1]"], [("blocks", ("layer1", "head"))]),
        (["stage=blocks", "stage.blocks=[layer2,stem]"], [("blocks", ("stem", "layer2", "head"))]),
        (["stage=staged"], [("head", ("head",)), ("last", ("layer10", "head")), ("all", NAMES)]),
        (
            ["stage=gradual"],
            [
                ("head", ("head",)),
                ("last-1", ("layer10", "head")),
                ("last-2", ("layer2", "layer10", "head")),
                ("last-3", ("layer1", "layer2", "layer10", "head")),
                ("last-4", NAMES),
            ],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value[0], str) else "",
)
def test_stages_are_phases_with_blocks_in_the_order_of_the_network(
    configure: Compose, overrides: list[str], planned: list[tuple[str, tuple[str, ...]]]
) -> None:
    assert plan(configure, *overrides) == planned


def test_a_phase_scales_all_rates_and_changes_what_it_says(configure: Compose) -> None:
    config = configure(
        "stage=staged",
        "optimizer.head_lr=1e-2",
        "optimizer.backbone_lr=1e-3",
        "optimizer.block_lrs.stem=1e-6",
        "stage.phases=[{name: a, learn: head, epochs: 2},"
        "{name: b, learn: all, epochs: 3, lr_factor: 0.5, scheduler: {warmup: 0.3}, bn_policy:"
        " {update_running_statistics: true}, augment: {horizontal_flip: 0.5}, optimizer: {weight_decay: 0.2}}]",
        "stage.last_blocks=null",
    )
    first, second = plan_phases(config, NAMES)
    assert (first.optimizer.head_lr, second.optimizer.head_lr) == (1e-2, 0.5e-2)
    assert second.optimizer.backbone_lr == 0.5e-3
    assert second.optimizer.block_lrs == {"stem": 0.5e-6}
    assert (first.optimizer.weight_decay, second.optimizer.weight_decay) == (1e-2, 0.2)
    assert (first.scheduler.warmup, second.scheduler.warmup) == (0.1, 0.3)
    assert first.scheduler.name == second.scheduler.name == "warmup_cosine"
    assert (first.bn_policy.update_running_statistics, second.bn_policy.update_running_statistics) == (False, True)
    assert (first.augment.is_random, second.augment.is_random) == (False, True)


def phases(*each: str) -> list[str]:
    return ["stage.last_blocks=null", f"stage.phases=[{','.join('{' + phase + '}' for phase in each)}]"]


HEAD = "name: a, learn: head, epochs: 1"
ILLEGAL = {
    # What learns.
    "last_blocks=5 in phase last: the network has 4 blocks before its head (stem, layer1": ["stage.last_blocks=5"],
    "stage.last_blocks=0 is not allowed: it must be at least 1": ["stage.last_blocks=0"],
    "blocks of phase b: the network has no block layr1. Did you mean 'layer1'?": phases(
        "name: b, learn: blocks, blocks: [layr1], epochs: 1"
    ),
    "stage.phases (b).blocks=[] is not allowed: it must be a list of block names": phases(
        "name: b, learn: blocks, epochs: 1"
    ),
    "stage.phases (b).last_blocks=None is not allowed: it must be at least 1 with learn=last": phases(
        "name: b, learn: last, epochs: 1"
    ),
    "stage.phases (b).last_blocks=2 has no effect with learn=head": phases(
        "name: b, learn: head, last_blocks: 2, epochs: 1"
    ),
    "stage.phases (b).blocks=['stem'] has no effect with learn=all": phases(
        "name: b, learn: all, blocks: [stem], epochs: 1"
    ),
    "stage.phases (b).one_block_more=True has no effect with learn=all": phases(
        "name: b, learn: all, one_block_more: true, epochs: 1"
    ),
    "expected one of ['head', 'last', 'blocks', 'all', 'norms', 'biases', 'patterns', 'lora']": phases(
        "name: b, learn: everything, epochs: 1"
    ),
    "stage.last_blocks=2 has no effect: no phase has learn=last": ["stage=full", "stage.last_blocks=2"],
    "stage.blocks=['stem'] has no effect: no phase has learn=blocks": ["stage=full", "stage.blocks=[stem]"],
    "stage.phases (blocks).blocks=[] is not allowed: it must be a list of block names with": ["stage=blocks"],
    "stage.phases (b).last_blocks=0 is not allowed: it must be at least 1": phases(
        "name: b, learn: norms, last_blocks: 0, epochs: 1"
    ),
    "stage.phases (b).last_blocks=1 and .blocks=['stem'] exclude each other": phases(
        "name: b, learn: biases, last_blocks: 1, blocks: [stem], epochs: 1"
    ),
    "stage.phases (b).patterns=['*'] has no effect with learn=norms": phases(
        "name: b, learn: norms, patterns: ['*'], epochs: 1"
    ),
    "stage.phases (b).blocks=['stem'] has no effect with learn=patterns": phases(
        "name: b, learn: patterns, patterns: ['*'], blocks: [stem], epochs: 1"
    ),
    "stage.phases (patterns).patterns=[] is not allowed: it must be a list of patterns of": ["stage=patterns"],
    "stage.patterns=['*'] has no effect: no phase has learn=patterns or lora. Use stage=patterns.": [
        "stage.patterns=['*']"
    ],
    "stage.rank=4 has no effect: no phase has learn=lora. Use stage=lora.": ["stage.rank=4"],
    "stage.phases (lora).rank=0 is not allowed: it must be at least 1 with learn=lora": ["stage=lora", "stage.rank=0"],
    "stage.phases (lora).alpha=-1.0 is not allowed: it must be above 0 with": ["stage=lora", "stage.alpha=-1"],
    "stage.phases (b).alpha=None is not allowed: it must be above 0 with learn=lora": phases(
        "name: b, learn: lora, patterns: ['*'], rank: 1, epochs: 1"
    ),
    "stage.phases (b).alpha=2.0 has no effect with learn=patterns": phases(
        "name: b, learn: patterns, patterns: ['*'], alpha: 2, epochs: 1"
    ),
    # The order of phases.
    "must be a list of at least one phase": ["stage.phases=[]", "stage.last_blocks=null"],
    "Phase b unfreezes nothing new: a already trains head": phases(HEAD, "name: b, learn: head, epochs: 1"),
    "Phase c unfreezes nothing new: b already trains stem, layer1": phases(
        HEAD, "name: b, learn: all, epochs: 1", "name: c, learn: last, last_blocks: 1, epochs: 1"
    ),
    "must be phases with different names": phases(HEAD, "name: a, learn: all, epochs: 1"),
    "stage.phases[0].name has no value": phases("learn: head, epochs: 1"),
    # Lengths and rates.
    "stage.epochs=0 is not allowed: it must be at least 1": ["stage.epochs=0"],
    "stage.phases (b).epochs=0 is not allowed: it must be at least 1": phases("name: b, learn: head, epochs: 0"),
    "stage.phases[0].epochs has no value": phases("name: b, learn: head"),
    "stage.phases (b).lr_factor=0.0 is not allowed: it must be above 0": phases(
        "name: b, learn: head, epochs: 1, lr_factor: 0"
    ),
    "optimizer.head_lr=-1 is not allowed: it must be auto, or above 0": ["optimizer.head_lr=-1"],
    "optimizer.backbone_lr=0 is not allowed: it must be auto, or above 0": phases(
        HEAD, "name: b, learn: all, epochs: 1, optimizer: {backbone_lr: 0}"
    ),
    "optimizer.block_lrs.layer3: the network has no block layer3": ["optimizer.block_lrs.layer3=1e-4"],
    "optimizer.block_lrs.stem has no effect: stem is frozen in every phase": [
        "stage=partial",
        "optimizer.block_lrs.stem=1e-4",
    ],
    "optimizer.block_lrs.layer10=0.0 is not allowed: it must be above 0": ["optimizer.block_lrs.layer10=0"],
    # Starting weights.
    "train.l2_sp=0.1 has no effect: it pulls the weight matrices below the head": ["stage=head", "train.l2_sp=0.1"],
    "train.wise_ft=[0.5] has no effect: everything below the head is frozen": ["stage=head", "train.wise_ft=[0.5]"],
    # What a phase changes.
    "There is no setting stage.phases (b).optimizer.lr. Did you mean": phases(
        "name: b, learn: head, epochs: 1, optimizer: {lr: 1}"
    ),
    "stage.phases (b).scheduler.interval: Invalid value 'day'": phases(
        "name: b, learn: head, epochs: 1, scheduler: {interval: day}"
    ),
    "There is no setting epoch. Did you mean 'epochs'?": phases("name: b, learn: head, epochs: 1, epoch: 2"),
    # The gate.
    "stage.gate: Invalid value 'sometimes', expected one of ['better', 'significant', 'off']": ["stage.gate=sometimes"],
    "stage.margin=-0.1 is not allowed: it must be 0 or above": ["stage.margin=-0.1"],
    "stage.margin=0.1 has no effect with stage.gate=significant": ["stage.margin=0.1", "stage.gate=significant"],
}


@pytest.mark.parametrize(("message", "overrides"), ILLEGAL.items(), ids=list(ILLEGAL))
def test_illegal_plans_are_refused_each_with_its_own_message(
    configure: Compose, message: str, overrides: list[str]
) -> None:
    with pytest.raises(Exception, match=r".") as refused:
        plan(configure, *overrides)
    shown = explain(refused.value)  # None where the command line would show a traceback
    assert shown is not None
    assert message in shown
