"""What differs on an Apple GPU, decided for one that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Compose

import ftexp
from ftexp.config import RuntimeConfig
from ftexp.data.augment.batch_augmentation import BatchAugmentation
from ftexp.errors import DeviceError
from ftexp.machine.accelerator import device_name, wait_for
from ftexp.machine.generators import forked_generators
from ftexp.machine.runtime import Runtime, inference_runtime, prepare_runtime
from ftexp.machine.transfer import send
from ftexp.preprocessing import Preprocessing
from ftexp.training.phase_state import random_state, set_random_state

MPS = torch.device("mps")


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A Mac with macOS 14 and an Apple GPU, whose generator has a state of one number; what is asked of it."""
    asked: list[str] = []
    state = [torch.tensor([7], dtype=torch.uint8)]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.backends.mps.is_macos_or_newer", lambda major, minor: (major, minor) <= (14, 0))
    monkeypatch.setattr("torch.backends.mps.get_name", lambda: "Apple M4")
    monkeypatch.setattr("torch.mps.synchronize", lambda: asked.append("synchronize"))
    monkeypatch.setattr("torch.mps.get_rng_state", lambda device: state[-1])
    monkeypatch.setattr("torch.mps.set_rng_state", lambda new, device: state.append(new))
    return asked


def choices(runtime: Runtime) -> tuple[str, str, bool, bool]:
    return runtime.device.type, runtime.precision, runtime.memory_format == torch.channels_last, runtime.compile


def settings(configure: Compose, *overrides: str) -> RuntimeConfig:
    return configure(*overrides).runtime


@pytest.mark.usefixtures("apple")
def test_auto_takes_what_is_right_and_fast_there_and_a_value_that_is_given_wins(configure: Compose) -> None:
    assert choices(prepare_runtime(settings(configure))) == ("mps", "fp32", False, False)
    given = ("runtime.precision=bf16", "runtime.channels_last=true", "runtime.compile=true")
    assert choices(prepare_runtime(settings(configure, *given))) == ("mps", "bf16", True, True)
    assert choices(inference_runtime("auto")) == ("mps", "fp32", False, False)
    assert not prepare_runtime(settings(configure)).memory.keeps
    bicubic = Preprocessing(64, 72, "bicubic", (0.5,) * 3, (0.5,) * 3)
    can_augment = [BatchAugmentation.supports(bicubic, torch.device(name)) for name in ("mps", "cpu", "cuda")]
    assert can_augment == [False, True, True], "it has no float64"


@pytest.mark.usefixtures("apple")
def test_precisions_that_it_lacks_are_refused(configure: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=r"precision=fp16 needs a CUDA device, and this run is on mps. Use fp32 or b"):
        prepare_runtime(settings(configure, "runtime.precision=fp16"))
    with pytest.raises(DeviceError, match=r"precision=fp16 needs a CUDA device, and this run is on cpu. Use fp32 or b"):
        prepare_runtime(settings(configure, "runtime.precision=fp16", "runtime.device=cpu"))
    monkeypatch.setattr("torch.backends.mps.is_macos_or_newer", lambda major, minor: (major, minor) <= (13, 6))
    with pytest.raises(DeviceError, match=r"precision=bf16 on an Apple GPU needs macOS 14 or newer. Use fp32."):
        prepare_runtime(settings(configure, "runtime.precision=bf16"))


def test_copies_to_it_wait_and_nothing_is_pinned(configure: Compose, apple: list[str]) -> None:
    asked: list[tuple[object, ...]] = []

    class Spy(torch.Tensor):
        def to(self, *args: object, **kwargs: object) -> torch.Tensor:
            asked.append((*args, kwargs["non_blocking"]))
            return torch.zeros(1, 3, 4, 4)

        def pin_memory(self, device: object = None) -> torch.Tensor:
            raise AssertionError("pinned")

    images = torch.zeros(1, 3, 4, 4).as_subclass(Spy)
    send(images, MPS)
    prepare_runtime(settings(configure)).place_images(images)
    assert asked == [(MPS, False)] * 2


def test_copies_that_do_not_wait_are_made_in_one_place_which_knows_the_device() -> None:
    sources = Path(ftexp.__file__).parent.rglob("*.py")
    assert [file.name for file in sources if "non_blocking" in file.read_text(encoding="utf-8")] == ["accelerator.py"]


def test_its_generator_is_saved_and_restored_with_a_run(apple: list[str]) -> None:
    saved = random_state(MPS)
    assert [state.tolist() for state in saved["cuda"]] == [[7]]
    with forked_generators(MPS):
        torch.mps.set_rng_state(torch.tensor([8], dtype=torch.uint8), MPS)
        assert random_state(MPS)["cuda"][0].tolist() == [8]
    assert random_state(MPS)["cuda"][0].tolist() == [7]
    torch.mps.set_rng_state(torch.tensor([9], dtype=torch.uint8), MPS)
    set_random_state(saved, MPS)
    assert random_state(MPS)["cuda"][0].tolist() == [7]
    set_random_state({**saved, "cuda": [torch.zeros(16, dtype=torch.uint8)]}, MPS)  # of a run that began on CUDA
    assert random_state(MPS)["cuda"][0].tolist() == [7]


def test_times_are_taken_when_it_has_computed_and_results_name_it(configure: Compose, apple: list[str]) -> None:
    wait_for(MPS)
    assert apple == ["synchronize"]
    wait_for(torch.device("cpu"))
    assert apple == ["synchronize"]
    assert prepare_runtime(settings(configure)).engine()["device_kind"] == device_name(MPS) == "Apple M4"
