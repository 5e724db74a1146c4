"""``python -m ftexp.models`` lists the models, or shows one: blocks, head, transforms and what each stage trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ftexp.cli.arguments import readable
from ftexp.cli.program import end_program, make_parser
from ftexp.config import ModelConfig, parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.errors import ConfigError
from ftexp.machine.interpreter import quick_imports, run_program

if TYPE_CHECKING:  # importing torch takes seconds, so it is imported only after the configuration has been checked
    from ftexp.models.blocks import Network

EXAMPLE = "timm model.name=levit_128s model.weights=null"


def main(arguments: list[str] | None = None) -> int:
    """Print the catalogue or one model; returns the exit code."""
    parser = make_parser("models", "Show the catalogue, or one model in detail.", EXAMPLE)
    parser.add_argument("model", nargs="?", help="an option of the config group model; without one, all are listed")
    parser.add_argument("overrides", nargs="*", help="settings such as model.image_size=320 or bn_policy=train")
    given = parser.parse_args(arguments)

    def task() -> int:
        register_schema()
        overrides = readable(given.overrides)
        with initialize_config_dir(str(conf_dir())):
            if given.model is None:
                show_catalogue()
            else:
                show_model(given.model, overrides)
        return 0

    return end_program(task)


def show_catalogue() -> None:
    """Print one line per option of ``model``."""
    with quick_imports():
        from ftexp.models.describe import catalogue_row
        from ftexp.report.tables import format_table

    rows = []
    for option in _options("model"):
        composed: Any = compose(f"model/{option}").model
        if not OmegaConf.is_missing(composed, "name"):
            config = OmegaConf.to_object(composed)
            assert isinstance(config, ModelConfig)
            rows.append(catalogue_row(option, config))
    print(format_table(rows))
    print("\nmodel=timm model.name=NAME opens any classifier of timm.")
    print(f"To see one in detail: python -m ftexp.models {EXAMPLE}")


def show_model(option: str, overrides: list[str]) -> None:
    """Print the blocks, the head and the transforms of a model, and what each stage would train.

    Raises:
        ConfigError: if the settings are wrong or do not fit the model.
    """
    config = parse(compose("config", overrides=[f"model={option}", *overrides]))

    with quick_imports():
        from ftexp.models import describe
        from ftexp.models.catalogue import build_skeleton, weights_state
        from ftexp.report.tables import format_table

    network = build_skeleton(config.model, describe.NUM_CLASSES)
    kinds = describe.normalisation(network.module)
    print(f"{network.name} of {config.model.library}; weights {weights_state(config.model)}; normalisation {kinds}")
    if "BatchNorm" not in kinds:
        print("It has no BatchNorm: bn_policy has no effect.")
    print(f"\nImages: {describe.transforms_line(network)}")
    print(f"\nBlocks, for {describe.NUM_CLASSES:,} classes:\n{format_table(describe.block_rows(network))}")
    print("\nHead:\n" + "\n".join(f"  {line}" for line in describe.head_lines(network)))
    rows, notes = _stages(network, [f"model={option}", *overrides])
    print("\n".join(["\nWhat each stage trains:", format_table(rows), *notes]))


def _stages(network: Network, overrides: list[str]) -> tuple[list[dict[str, object]], list[str]]:
    """A row per phase of every stage, and a line for each stage that does not work with this model or settings."""
    from ftexp.finetune.adapters import prepared
    from ftexp.finetune.freezing import open_blocks
    from ftexp.finetune.phases import plan_phases

    rows: list[dict[str, object]] = []
    notes = []
    total = sum(parameter.numel() for parameter in network.module.parameters())
    for option in _options("stage"):
        try:
            config = parse(compose("config", overrides=[*overrides, f"stage={option}"]))
            phases = plan_phases(config, network.names, network)
        except ConfigError as error:
            notes.append(f"stage={option} is not possible with these settings: {error}")
            continue
        for phase in phases:
            with prepared(network, phase.change):
                open_blocks(network, phase)
                opened = sum(p.numel() for p in network.module.parameters() if p.requires_grad)
            rows.append(
                {
                    "stage": option,
                    "phase": phase.name,
                    "learns": phase.kind
                    + (" ".join(phase.learning) if len(phase.learning) < 4 else _ends(phase.learning)),
                    "parameters": opened,
                    "share": f"{100 * opened / total:.1f} %",
                }
            )
    return rows, notes


def _ends(names: tuple[str, ...]) -> str:
    return f"{names[0]} … {names[-1]}"


def _options(group: str) -> list[str]:
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))


if __name__ == "__main__":
    run_program(main)
