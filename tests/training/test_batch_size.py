from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Barrier
from typing import Any, TypeVar

import pytest
import torch
from conftest import Compose, make_phase
from torch import nn

from ftexp.errors import ConfigError, DeviceError
from ftexp.finetune.phases import plan_phases
from ftexp.machine import memory_budget
from ftexp.machine.distributed import Ranks
from ftexp.machine.memory_budget import MemoryBudget
from ftexp.machine.runtime import prepare_runtime
from ftexp.models.blocks import Network
from ftexp.training import batch_size
from ftexp.training.batch_size import largest_that_fits, settle_batch_size
from ftexp.training.folding import FoldedForward
from ftexp.training.inputs.batches import Forward

T = TypeVar("T")

AUTO = ("runtime.device=cpu", "train.batch_size=auto")


@pytest.mark.parametrize(
    ("free", "most", "expected"), [(1000, 1024, 64), (640, 1024, 64), (639, 1024, 32), (1e9, 100, 64)]
)
def test_it_is_the_largest_power_of_two_within_both_limits(free: float, most: int, expected: int) -> None:
    assert largest_that_fits(lambda images: 10 * images, free, most) == expected


def test_a_device_that_runs_out_of_memory_has_said_enough() -> None:
    def tried(images: int) -> float:
        if images > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    assert largest_that_fits(tried, 100.0, 1024) == 8


def test_the_smallest_batch_is_tried_also_where_there_are_fewer_images() -> None:
    assert largest_that_fits(lambda images: 10 * images, 20, 1, least=2) == 2
    with pytest.raises(DeviceError, match="2 images do not fit"):
        largest_that_fits(lambda images: 10 * images, 15, 64, least=2)


@pytest.mark.parametrize(
    "message", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate memory"]
)
def test_a_library_that_runs_out_of_memory_has_said_enough_too(message: str) -> None:
    def tried(images: int) -> float:
        if images > 8:
            raise RuntimeError(message)
        return 1.0

    assert largest_that_fits(tried, 100.0, 1024) == 8


def test_other_errors_of_a_measurement_are_raised() -> None:
    def broken(images: int) -> float:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        largest_that_fits(broken, 100.0, 1024)


@dataclass(frozen=True)
class Threads(Ranks):
    """Ranks that are threads of this process; a collective that not all of them call breaks the barrier."""

    box: list[int] = field(default_factory=list)
    barrier: Barrier = field(default_factory=lambda: Barrier(2, timeout=10))

    def all_reduce_max(self, number: int) -> int:
        self.box[self.rank] = number
        self.barrier.wait()
        most = max(self.box)
        self.barrier.wait()
        return most


def in_two_ranks(do: Callable[[Ranks], T]) -> list[T]:
    box, barrier = [0, 0], Barrier(2, timeout=10)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(do, [Threads(rank, 2, box=box, barrier=barrier) for rank in range(2)]))


def test_ranks_measure_the_same_sizes_and_agree_on_what_fits_on_the_smallest() -> None:
    measured: list[list[int]] = [[], []]

    def largest(ranks: Ranks) -> int:
        def measure(images: int) -> float:
            measured[ranks.rank].append(images)
            if ranks.rank == 1 and images > 16:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return images

        return largest_that_fits(measure, 100.0, 1024, ranks=ranks)

    assert in_two_ranks(largest) == [16, 16]
    assert measured == [[16, 32]] * 2


@pytest.mark.parametrize(
    ("room", "most", "least", "tried", "expected"),
    [
        (100, 1024, 1, [16, 32, 64, 128], 64),
        (100, 40, 1, [16, 32], 32),
        (100, 9, 1, [8], 8),
        (5, 1024, 1, [16, 8, 4], 4),
        (100, 1024, 32, [32, 64, 128], 64),
        (100, 0, 2, [2], 2),
    ],
)
def test_small_sizes_are_tried_only_where_sixteen_do_not_fit(
    room: int, most: int, least: int, tried: list[int], expected: int
) -> None:
    """A GPU prepares its kernels for each size that is tried."""
    sizes: list[int] = []
    assert largest_that_fits(lambda images: sizes.append(images) or images, room, most, least=least) == expected  # type: ignore[func-returns-value]
    assert sizes == tried


def test_all_ranks_say_so_where_one_has_no_room() -> None:
    def largest(ranks: Ranks) -> str:
        with pytest.raises(DeviceError, match="does not fit into the free memory of each of the 2 processes") as error:
            largest_that_fits(lambda images: images, 100.0 if ranks.rank else 0.5, 1024, ranks=ranks)
        return str(error.value)

    assert len(in_two_ranks(largest)) == 2


def test_auto_under_several_ranks_is_a_batch_that_they_share_evenly(configure: Compose, network: Network) -> None:
    """16 updates of 1078 images are 64 at a time: 32 for each of two, whose memory differs."""
    config = configure(*AUTO)
    runtime, phases = prepare_runtime(config.runtime), [make_phase("stem", "body", "head", policy="eval")]
    networks = [copy.deepcopy(network) for _ in range(2)]

    def settle_as(ranks: Ranks) -> int:
        own = replace(runtime, ranks=ranks)
        return settle_batch_size(config, networks[ranks.rank], phases, own, 1078).train.images_per_step

    assert in_two_ranks(settle_as) == [64, 64]
    free = iter([2**30, 2**19])
    with pytest.MonkeyPatch.context() as patch:
        memory: Callable[[], object] = lambda: type("Memory", (), {"available": next(free)})  # noqa: E731
        patch.setattr(memory_budget.psutil, "virtual_memory", memory)
        first, second = in_two_ranks(settle_as)
    assert first == second < 64
    assert first % 2 == 0


def test_the_smallest_batch_under_several_ranks_is_counted_over_all_of_them(
    configure: Compose, network: Network
) -> None:
    """Where BatchNorm learns and 20 images make no 16 updates: two images at a time, one for each of two ranks."""
    config = configure(*AUTO)
    runtime, phases = prepare_runtime(config.runtime), [make_phase("stem", "body", "head", policy="train")]
    networks = [copy.deepcopy(network) for _ in range(2)]

    def settle_as(ranks: Ranks) -> int:
        own = replace(runtime, ranks=ranks)
        return settle_batch_size(config, networks[ranks.rank], phases, own, 20).train.images_per_step

    assert in_two_ranks(settle_as) == [2, 2]


def test_where_not_one_image_fits_it_says_what_to_do() -> None:
    with pytest.raises(DeviceError, match=r"one image does not fit into 0.5 GiB.*smaller model or data.image_size"):
        largest_that_fits(lambda images: images * 2**30, 2**29, 64)


def settle(
    configure: Compose, network: Network, num_samples: int, *overrides: str, free: float = 2**30, policy: str = "train"
) -> int:
    config = configure(*AUTO, *overrides)
    phases = [make_phase("head", policy=policy), make_phase("stem", "body", "head", policy=policy)]
    runtime = prepare_runtime(config.runtime)
    with pytest.MonkeyPatch.context() as patch:
        memory: Callable[[], object] = lambda: type("Memory", (), {"available": free})  # noqa: E731
        patch.setattr(memory_budget.psutil, "virtual_memory", memory)
        return settle_batch_size(config, network, phases, runtime, num_samples).train.images_per_step


def test_small_data_keeps_sixteen_updates_an_epoch(configure: Compose, network: Network) -> None:
    assert settle(configure, network, 1078) == 64
    assert settle(configure, network, 1078, "train.accumulate=4") == 16
    assert settle(configure, network, 3, policy="eval") == 1


def test_batch_norm_in_training_gets_two_images_at_least(configure: Compose, network: Network) -> None:
    assert settle(configure, network, 24) == 2
    assert settle(configure, network, 24, "train.accumulate=8") == 2
    assert settle(configure, network, 24, policy="eval") == 1
    with pytest.raises(DeviceError, match=r"2 images do not fit into 0\.0 GiB"):
        settle(configure, network, 24, free=2)


def test_the_line_counts_updates_as_the_run_does(
    configure: Compose, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """33 batches of 32 images and one of 22, two in an update."""
    with caplog.at_level("INFO", logger="ftexp"):
        assert settle(configure, network, 1078, "train.accumulate=2") == 32
    assert caplog.messages == ["batch   32 images of 8 px: 17 updates in an epoch"]


def test_on_a_cpu_it_is_what_autograd_keeps_of_an_image(configure: Compose, network: Network) -> None:
    """8 x 8 images: 3 channels of input twice (kept and loaded), convolutions of 4 and 6 channels, and what follows."""
    assert settle(configure, network, 10**6, free=2**30) == 1024
    per_image = [free / settle(configure, network, 10**6, free=free) for free in (2**20, 2**21)]
    # Half of the memory may be used; a power of two is at most twice too small.
    for needed in per_image:
        assert 2 * (3 + 4 + 6) * 8 * 8 * 4 < needed < 4 * 4 * (3 + 4 * 3 + 6 * 4) * 8 * 8 * 4


@pytest.mark.parametrize(
    ("learning", "trained"),
    [(("head",), 4 * (6 * 4 + 4)), (("stem", "body", "head"), 4 * (108 + 8 + 222 + 12 + 6 + 28))],
)
def test_a_trained_weight_takes_the_room_of_a_gradient_and_two_states(
    configure: Compose, network: Network, learning: tuple[str, ...], trained: int
) -> None:
    """64 images of 100 bytes each, and the weights that learn, in the half of the memory that may be used."""
    config, phases = configure(*AUTO), [make_phase(*learning, policy="eval")]
    room = 2 * (64 * 100 + 3 * trained)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_size, "_saved_bytes", lambda *_: (0.0, 100.0))
        for available, expected in ((room, 64), (room - 2, 32)):
            runtime = replace(prepare_runtime(config.runtime), memory=MemoryBudget(lambda: available, 0.5, keeps=True))  # noqa: B023
            assert settle_batch_size(config, network, phases, runtime, 10**6).train.images_per_step == expected


def test_what_autograd_keeps_is_counted_once_and_without_the_weights(configure: Compose) -> None:
    """In bytes, of two images of 8 x 8: themselves, the outputs of the convolution and of what follows it, 4 logits and
    the logarithm of their sum; and the images once more, as they are loaded."""
    runtime = prepare_runtime(configure("runtime.device=cpu", "runtime.channels_last=false").runtime)
    module = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(320, 4))
    module[1].eval()
    images, outputs = 2 * 3 * 64 * 4, 2 * 5 * 64 * 4
    expected = images + outputs + outputs + 2 * 4 * 4 + 2 * 4 + images
    assert batch_size._saved_bytes(module, module, 8, runtime) == (0, expected / 2)


def test_folded_weights_are_counted_once_and_what_is_not_kept_between_the_folded_layers_is_not(
    configure: Compose,
) -> None:
    """As above, without the output of the convolution; 5 x 3 x 3 x 3 folded weights and a few numbers a channel."""
    runtime = prepare_runtime(configure("runtime.device=cpu", "runtime.channels_last=false").runtime)
    module = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(320, 4))
    module[1].eval()
    image, output = 3 * 64 * 4, 5 * 64 * 4
    of_batch, of_image = batch_size._saved_bytes(FoldedForward(module, module, runtime), module, 8, runtime)
    assert of_image == image + output + 4 * 4 + 4 + image
    assert 5 * 27 * 4 <= of_batch <= 5 * 27 * 4 + 8 * 5 * 4


@pytest.mark.parametrize(
    ("wanted", "policy", "part"), [("true", "eval", 0.7), ("true", "train", 1), ("false", "eval", 1)]
)
def test_a_step_that_trains_folded_is_measured_folded(
    configure: Compose, network: Network, wanted: str, policy: str, part: float
) -> None:
    phases, promised = [make_phase("stem", "body", "head", policy=policy)], []
    for setting in ("false", wanted):
        config = configure(*AUTO, f"runtime.fold_batchnorm={setting}")
        budget = MemoryBudget(lambda: 2**24, 0.5, keeps=True)
        settle_batch_size(config, network, phases, replace(prepare_runtime(config.runtime), memory=budget), 500, 24)
        promised.append(budget._step_bytes)
    assert promised[1] == pytest.approx(part * promised[0], rel=0.03)


@pytest.mark.parametrize(("compiles", "forwards"), [(False, ["FoldedForward"]), (True, ["TinyNet", "FoldedForward"])])
def test_on_an_accelerator_a_step_that_may_be_compiled_is_measured_folded_and_not(
    configure: Compose, network: Network, monkeypatch: pytest.MonkeyPatch, compiles: bool, forwards: list[str]
) -> None:
    """Which it will be follows from the batch size; the larger of both has to fit."""
    seen: list[str] = []

    def measured(forward: object, *_: Any) -> float:
        seen.append(type(forward).__name__)
        return 3000.0 if isinstance(forward, nn.Module) else 2000.0

    monkeypatch.setattr(batch_size, "is_accelerator", lambda _: True)
    monkeypatch.setattr(batch_size, "_peak_bytes", measured)
    config = configure(*AUTO, "runtime.fold_batchnorm=true")
    budget = MemoryBudget(lambda: 2**24, 0.5, keeps=True)
    runtime = replace(prepare_runtime(config.runtime), memory=budget, compile=compiles)
    settle_batch_size(config, network, [make_phase("stem", "body", "head")], runtime, 500, 24)
    assert seen == forwards
    assert budget._step_bytes == (3000 if compiles else 2000)


def test_statistics_of_single_values_are_measured_on_two_images(configure: Compose) -> None:
    runtime = prepare_runtime(configure("runtime.device=cpu").runtime)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 4))
    assert batch_size._saved_bytes(module, module, 8, runtime)[1] > 0


def test_it_is_measured_in_the_precision_and_the_layout_of_training(configure: Compose, network: Network) -> None:
    layouts: list[bool] = []
    network.module.register_forward_pre_hook(
        lambda _, given: layouts.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    bf16, fp32 = (
        batch_size._saved_bytes(
            network.module, network.module, 32, prepare_runtime(configure(*AUTO, *settings).runtime)
        )[1]
        for settings in (["runtime.precision=bf16"], ["runtime.channels_last=false"])
    )
    assert bf16 < 0.8 * fp32
    assert layouts == [True, False]


@pytest.mark.parametrize("policy", ["train", "eval"])
def test_it_is_measured_in_the_mode_of_training(configure: Compose, network: Network, policy: str) -> None:
    config, modes = configure(*AUTO), {}
    network.module.eval()

    def measured(_: object, module: nn.Module, *__: Any) -> tuple[float, float]:
        modes.update({type(layer).__name__: layer.training for layer in module.modules()})
        return 0.0, 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_size, "_saved_bytes", measured)
        phases = [make_phase("stem", "body", "head", policy=policy)]
        settle_batch_size(config, network, phases, prepare_runtime(config.runtime), 500)
    assert (modes["BatchNorm2d"], modes["Dropout"]) == (policy == "train", True)


def test_on_an_accelerator_it_is_the_peak_of_a_step_and_two_states_of_what_learns(
    configure: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5,000 bytes at the peak, 1,000 of which were taken before, and 2 states of 3 x 4 + 4 weights in fp32."""
    runtime = prepare_runtime(configure("runtime.device=cpu").runtime)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3), nn.Linear(3, 4))
    module[2].requires_grad_(False)
    seen: list[object] = []
    module.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))

    def told(name: str, number: int = 0) -> Callable[[torch.device], int]:
        def ask(device: torch.device) -> int:
            seen.append((name, module[3].weight.grad is not None))
            return number

        return ask

    for name, number in (("empty_cache", 0), ("forget_peak", 1000), ("peak_bytes", 5000)):
        monkeypatch.setattr(batch_size, name, told(name, number))
    assert batch_size._peak_bytes(module, module, 8, runtime, 1) == 5000 - 1000 + 2 * 4 * (3 * 4 + 4)
    before, after = [("empty_cache", False), ("forget_peak", False)], [("peak_bytes", True), ("empty_cache", False)]
    assert seen == [*before, (2, 3, 8, 8), *after], "two images at least, whose statistics BatchNorm can compute"


def test_a_phase_with_adapters_is_measured_with_them(configure: Compose, network: Network) -> None:
    config = configure(*AUTO, "stage=lora", "stage.rank=2")
    names, trained = list(network.module.state_dict()), []
    with pytest.MonkeyPatch.context() as patch:
        saved = batch_size._saved_bytes

        def measured(forward: Forward, module: nn.Module, *rest: Any) -> tuple[float, float]:
            trained.extend(name for name, p in module.named_parameters() if p.requires_grad)
            return saved(forward, module, *rest)

        patch.setattr(batch_size, "_saved_bytes", measured)
        phases = plan_phases(config, network.names, network)
        settle_batch_size(config, network, phases, prepare_runtime(config.runtime), 1078)
    assert len([name for name in trained if name.endswith(("up", "down"))]) == 4
    assert list(network.module.state_dict()) == names


def test_what_a_step_takes_is_promised_to_it(configure: Compose, network: Network) -> None:
    config = configure(*AUTO)
    runtime = replace(prepare_runtime(config.runtime), memory=MemoryBudget(lambda: 2**24, 0.5, keeps=True))
    assert runtime.memory.take(2**23)
    runtime.memory.end_phase()
    settled = settle_batch_size(config, network, [make_phase("stem", "body", "head")], runtime, 500).train
    assert settled.images_per_step == 16
    assert not runtime.memory.take(2**23)
    # Of 8 x 8 images, 3 channels of input, and 4 and 6 of the convolutions, are kept at least.
    assert not runtime.memory.take(2**23 - 16 * (3 + 4 + 6) * 8 * 8 * 4)
    assert runtime.memory.take(2**22)


def test_a_run_that_goes_on_keeps_its_size_and_its_step_the_memory(configure: Compose, network: Network) -> None:
    config, phases = configure(*AUTO), [make_phase("stem", "body", "head")]
    runtime = replace(prepare_runtime(config.runtime), memory=MemoryBudget(lambda: 2**24, 0.5, keeps=True))
    assert settle_batch_size(config, network, phases, runtime, 500, 24).train.images_per_step == 24
    assert not runtime.memory.take(2**23 - 24 * (3 + 4 + 6) * 8 * 8 * 4)
    assert runtime.memory.take(2**22)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_size, "_saved_bytes", lambda *_: (0.0, 2.0**24))  # what fitted then does not now
        assert settle_batch_size(config, network, phases, runtime, 500, 24).train.images_per_step == 24
    runtime.memory.end_phase()
    assert not runtime.memory.take(1)


def test_a_run_that_goes_on_where_its_step_runs_out_of_memory_has_none_for_anything_else(
    configure: Compose, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(batch_size, "is_accelerator", lambda _: True)
    monkeypatch.setattr(batch_size, "_peak_bytes", measured)
    config, phases = configure(*AUTO), [make_phase("stem", "body", "head")]
    runtime = replace(prepare_runtime(config.runtime), memory=MemoryBudget(lambda: 2**24, 0.5, keeps=True))
    assert settle_batch_size(config, network, phases, runtime, 500, 24).train.images_per_step == 24
    assert not runtime.memory.take(1)


def test_a_run_of_several_ranks_that_goes_on_keeps_the_size_over_all_of_them(
    configure: Compose, network: Network, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 images in batches of 24 are 20 updates and one of 20 images."""
    config, phases = configure(*AUTO), [make_phase("stem", "body", "head", policy="eval")]
    monkeypatch.setattr(batch_size, "_saved_bytes", lambda *_: (0.0, 100.0))
    for rank in range(2):
        budget = MemoryBudget(lambda: 2**24, 0.5, keeps=True)
        runtime = replace(prepare_runtime(config.runtime), ranks=Ranks(rank, 2), memory=budget)
        with caplog.at_level("INFO", logger="ftexp"):
            assert settle_batch_size(config, network, phases, runtime, 500, 24).train.images_per_step == 24
        assert budget._step_bytes == 12 * 100, "of this rank's images"
    assert caplog.messages == ["batch   24 images of 8 px: 21 updates in an epoch"] * 2


def test_weights_statistics_and_random_numbers_stay(configure: Compose, network: Network) -> None:
    before, state = {k: v.clone() for k, v in network.module.state_dict().items()}, torch.get_rng_state()
    config = configure(*AUTO)
    runtime = prepare_runtime(config.runtime)
    torch.set_rng_state(state)
    settle_batch_size(config, network, [make_phase("stem", "body", "head")], runtime, 500)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_number_is_taken_as_it_is_and_other_words_are_refused(configure: Compose) -> None:
    assert configure("train.batch_size=48").train.images_per_step == 48
    for wrong in ("0", "all"):
        with pytest.raises(ConfigError, match=rf"train.batch_size={wrong}.*at least 1, or auto"):
            configure(f"train.batch_size={wrong}")
