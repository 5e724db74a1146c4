from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import Compose, make_phase

from ftexp.errors import ConfigError, DeviceError
from ftexp.models.blocks import Network
from ftexp.training import batch_size as batch_size_module
from ftexp.training.batch_size import largest_that_fits, settle_batch_size
from ftexp.training.runtime import prepare_runtime

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


def test_where_not_one_image_fits_it_says_what_to_do() -> None:
    with pytest.raises(DeviceError, match=r"one image does not fit into 0.5 GiB.*smaller model or data.image_size"):
        largest_that_fits(lambda images: images * 2**30, 2**29, 64)


def settle(configure: Compose, network: Network, num_samples: int, *overrides: str, free: float = 2**30) -> int:
    config = configure(*AUTO, *overrides)
    phases, runtime = [make_phase("head"), make_phase("stem", "body", "head")], prepare_runtime(config.runtime)
    with pytest.MonkeyPatch.context() as patch:
        memory: Callable[[], object] = lambda: type("Memory", (), {"available": free})  # noqa: E731
        patch.setattr(batch_size_module.psutil, "virtual_memory", memory)
        return settle_batch_size(config, network, phases, runtime, num_samples).train.images_per_step


def test_small_data_keeps_sixteen_updates_an_epoch(configure: Compose, network: Network) -> None:
    assert settle(configure, network, 1078) == 64
    assert settle(configure, network, 1078, "train.accumulate=4") == 16
    assert settle(configure, network, 3) == 1


def test_on_a_cpu_it_is_what_autograd_keeps_of_an_image(configure: Compose, network: Network) -> None:
    """8 x 8 images: 3 channels of input twice (kept and loaded), convolutions of 4 and 6 channels, and what follows."""
    assert settle(configure, network, 10**6, free=2**30) == 1024
    per_image = [free / settle(configure, network, 10**6, free=free) for free in (2**20, 2**21)]
    # Half of the memory may be used; a power of two is at most twice too small.
    for needed in per_image:
        assert 2 * (3 + 4 + 6) * 8 * 8 * 4 < needed < 4 * 4 * (3 + 4 * 3 + 6 * 4) * 8 * 8 * 4


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
