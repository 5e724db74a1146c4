"""Every convolution gets its input in the memory format of its weights, which is the one that the images settle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CommandLine
from PIL import Image
from torch import Tensor, nn

from benchmarks.copies import PARTIAL, SETTINGS, draw
from benchmarks.pretended.backend import pretended
from benchmarks.pretended.tensor import NAME
from ftexp.__main__ import main
from ftexp.compare_models import main as compare_models
from ftexp.cross_validate import main as cross_validate
from ftexp.evaluate import main as evaluate
from ftexp.export import main as export
from ftexp.machine.device_kinds import KINDS
from ftexp.pick_images import main as pick_images

PICKED = ("probe.unlabelled=new", "probe.count=3")
TRAINED = ("real_folds=true", "probe.repeats=1", "probe.folds=2", "stage=full", "augment=light", "stage.epochs=1")
WITHOUT_MODEL = [setting for setting in SETTINGS if not setting.startswith("model")]


def formats_of(*tensors: Tensor) -> set[str]:
    """Those of the tensors that have one: of a single place or channel both fit, and placeholders are expanded."""
    found = set()
    for tensor in tensors:
        first, last = tensor.is_contiguous(), tensor.is_contiguous(memory_format=torch.channels_last)
        if first != last:
            found.add("channels first" if first else "channels last")
    return found


@pytest.fixture
def seen() -> Iterator[set[str]]:
    """The formats of the inputs and weights of all convolutions that run on the pretended accelerator."""
    found: set[str] = set()

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d) and inputs[0].device.type == NAME:
            found.update(formats_of(inputs[0], module.weight))

    hook = nn.modules.module.register_module_forward_pre_hook(look)
    with pretended():
        yield found
    hook.remove()


@pytest.mark.slow
@pytest.mark.parametrize(("least", "expected"), [(5_000, "channels first"), (1, "channels last")])
def test_all_commands_run_in_the_format_that_the_number_of_images_settles(
    command_line: CommandLine,
    seen: set[str],
    tmp_path: Path,
    no_pictures: None,
    least: int,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(KINDS, NAME, replace(KINDS[NAME], channels_last_from=least))
    draw(tmp_path / "pictures")
    (tmp_path / "new").mkdir()
    for number, pixels in enumerate(np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "new" / f"{number}.png")
    monkeypatch.setattr("ftexp.run._write_page", lambda *_: None)  # its convolution changes the format of its pictures
    for entry, arguments in (
        (main, PARTIAL),
        (evaluate, ("run",)),
        (
            compare_models,
            (*WITHOUT_MODEL, "models=[test_efficientnet@run,test_efficientnet@null]", "hydra.run.dir=compared"),
        ),
        (pick_images, (*SETTINGS, *PICKED, "hydra.run.dir=picked")),
        (cross_validate, (*SETTINGS, *TRAINED, "hydra.run.dir=folds")),
    ):
        ended = command_line(*arguments, entry=entry)
        assert ended.returncode == 0, ended.stderr
        assert seen == {expected}, arguments
        seen.clear()
    assert command_line("run", "--format", "onnx", entry=export).returncode == 0
    assert seen == set(), "an export is compared on the CPU"
