"""Which rank gets which part of an epoch; no process is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest
import torch
from conftest import Compose, TinyNet
from image_batches import batches_of
from timm.layers import BatchNormAct2d
from torch import nn

from ftexp.config import Config
from ftexp.data.augment.transforms import ImageTransform
from ftexp.data.loading.sampler import BatchSettings, EpochSampler
from ftexp.data.samples import Sample
from ftexp.data_identity import DataIdentity
from ftexp.errors import ConfigError, DeviceError, RankError
from ftexp.finetune.batchnorm import synchronise_statistics
from ftexp.machine.distributed import ONE_PROCESS, Ranks, _Replica, process_group
from ftexp.machine.generators import forked_generators
from ftexp.machine.runtime import prepare_runtime, seed_phase
from ftexp.models.blocks import Network
from ftexp.preparation.prepare import prepare
from ftexp.preparation.rank_checks import check_graphs, check_shares
from ftexp.run_identity import RunIdentity
from ftexp.training.epoch_sums import EpochSums
from ftexp.training.inputs.batches import SampledBatches
from ftexp.training.loop import evaluate
from ftexp.training.losses import LossSum

T = TypeVar("T")

CPU = torch.device("cpu")


def order_of(rank: int, size: int, num_samples: int, used: int) -> list[int]:
    settings = BatchSettings(8 * size, 3, shuffle=True, num_images=used, ranks=Ranks(rank, size))
    sampler = EpochSampler([Sample(str(i), "a") for i in range(num_samples)], {"a": 0}, settings)
    return [index for part in sampler.own_batches(5) for index in part]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_the_ranks_together_see_every_sample_once(size: int) -> None:
    parts = [order_of(rank, size, 101, 101) for rank in range(size)]
    assert sorted(index for part in parts for index in part) == list(range(101))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_ranks_share_the_batch_that_one_process_would_have() -> None:
    alone = order_of(0, 1, 24, 24)
    first, second = order_of(0, 2, 24, 24), order_of(1, 2, 24, 24)
    for start in range(0, 24, 8):
        half = slice(start // 2, start // 2 + 4)
        assert sorted(first[half] + second[half]) == sorted(alone[start : start + 8])


def images(count: int, ranks: Ranks, *, shown: int | None = None) -> SampledBatches:
    samples = [
        Sample(path=f"{i}", label="a", pixels=torch.full((4, 4, 3), i, dtype=torch.uint8).numpy()) for i in range(count)
    ]

    def to_tensor(image: object) -> torch.Tensor:
        return torch.full((3, 1, 1), int(image.getpixel((0, 0))[0]), dtype=torch.uint8)  # type: ignore[attr-defined]

    transform = ImageTransform(lambda image: image, "as it is", to_tensor, is_random=True)
    return batches_of(samples, transform, batch_size=8, shuffle=True, num_images=shown, ranks=ranks)


@pytest.mark.parametrize(
    ("count", "shown", "batches"), [(24, None, 3), (29, None, 4), (29, 24, 3), (31, 24, 3), (25, None, 4)]
)
def test_every_rank_has_the_same_number_of_batches(count: int, shown: int | None, batches: int) -> None:
    ranks = [images(count, Ranks(rank, 2), shown=shown) for rank in (0, 1)]
    read = [[batch.flatten(1)[:, 0].tolist() for batch, _ in part.epoch(0)] for part in ranks]
    assert [len(part) for part in read] == [batches, batches] == [part.num_batches for part in ranks]
    for number, (mine, yours, whole) in enumerate(zip(*read, ranks[0].sampler.batches(0), strict=True)):
        assert sorted(mine + yours) == sorted(whole)
        assert ranks[0].num_images(number) == len(whole)
    assert read[1] == ranks[1].sampler.own_batches(0)


def test_a_rank_without_images_of_the_last_batch_has_an_empty_part_of_it() -> None:
    batches = images(25, Ranks(1, 2))
    *_, (part, labels) = batches.epoch(0)
    assert (tuple(part.shape), part.dtype) == ((0, 3, 1, 1), torch.uint8)
    assert (labels.shape, labels.dtype) == ((0,), torch.int64)
    assert [len(part) for part, _ in batches.epoch(0, start=3)] == [0], "an interrupted epoch goes on there"


def test_a_rank_without_images_takes_part_in_the_backward_pass_with_gradients_of_zero() -> None:
    """Through a network that cannot run on no image at all."""
    network, calls = TinyNet(), []

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        calls.append(len(inputs))
        return network(inputs.reshape(len(inputs), -1).reshape(inputs.shape))

    replica = _Replica(forward, network)
    logits = replica(torch.zeros(0, 3, 8, 8))
    assert logits.shape == (0, 4)
    logits.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in network.parameters())
    replica(torch.zeros(2, 3, 8, 8))
    assert calls == [1, 2]


def test_a_rank_scores_its_part_of_the_last_batch(configure: Compose) -> None:
    """With a network that cannot run on no image at all."""
    network, part = TinyNet().eval(), torch.randn(2, 3, 8, 8)

    class Parts:
        def epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            yield part, torch.tensor([0, 1])
            yield part[:0], torch.zeros(0, dtype=torch.int64)

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        assert len(inputs) > 0
        return network(inputs)

    runtime = prepare_runtime(configure("runtime.device=cpu").runtime)
    assert evaluate(forward, Parts(), 4, runtime).num_samples == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(("num_images", "expected"), [(8, [3, 3, 2]), (2, [1, 1, 0]), (3, [1, 1, 1])])
def test_own_share(num_images: int, expected: list[int]) -> None:
    assert [Ranks(rank, 3).local_batch_size(num_images) for rank in range(3)] == expected


def test_an_interrupted_epoch_goes_on_at_the_same_batch_on_every_rank() -> None:
    batches = images(32, Ranks(1, 2))
    whole = [batch.flatten(1)[:, 0].tolist() for batch, _ in batches.epoch(4)]
    assert [batch.flatten(1)[:, 0].tolist() for batch, _ in batches.epoch(4, start=2)] == whole[2:]


class Twice(Ranks):
    """A second rank that has done exactly what this one has."""

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return 2 * tensor


def test_losses_are_sums_over_all_ranks_by_their_weights_and_count_once_after_resuming() -> None:
    sums = EpochSums(norms=[torch.tensor(0.5)], seconds=2.0)
    sums.add(LossSum(torch.tensor(1.0), torch.tensor(0.5)), 4)
    sums.add(LossSum(torch.tensor(4.0), torch.tensor(2.5)), 2)
    whole = sums.over(Twice(0, 2))
    assert whole.sizes == [8, 4]
    assert whole.stats().loss == pytest.approx((1 + 4) / (0.5 + 2.5))
    assert whole.stats().images_per_second == 6
    saved = sums.state_dict(Twice(0, 2))
    assert EpochSums.from_state(saved, Ranks(0, 2)).sizes == [8, 4]
    other = EpochSums.from_state(saved, Ranks(1, 2))
    assert (other.totals, other.weights, other.sizes) == ([0, 0], [0, 0], [0, 0]), "the first rank stands for all"
    other.add(LossSum(torch.tensor(3.0), torch.tensor(1.0)), 1)
    assert other.over(Ranks()).stats().loss == 3, "what is read and what is still on the device go together"


def test_collectives_of_one_process_return_what_they_are_given() -> None:
    rows = torch.arange(3)
    assert ONE_PROCESS.gather_rows(rows) is rows
    assert ONE_PROCESS.all_reduce_sum(rows) is rows
    assert ONE_PROCESS.all_gather("a") == ["a"]
    assert (
        ONE_PROCESS.broadcast(lambda: 7) == ONE_PROCESS.first_on_host(lambda: 7) == ONE_PROCESS.all_reduce_max(7) == 7
    )


def test_statistics_over_all_ranks_keep_the_names_and_need_cuda() -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), BatchNormAct2d(4)).eval()

    plain = network()
    converted = synchronise_statistics(network(), torch.device("cuda"))
    converted.load_state_dict(plain.state_dict())
    assert [type(layer).__name__ for layer in converted[1:]] == ["SyncBatchNorm", "SyncBatchNormAct"]
    batch = torch.randn(2, 3, 4, 4)
    assert torch.equal(converted(batch), plain(batch)), "in eval mode they are the same"
    with pytest.raises(DeviceError, match=r"needs CUDA, and this run is on cpu.*bn_policy=eval"):
        synchronise_statistics(network(), CPU)
    without = nn.Sequential(nn.Linear(2, 2))
    assert synchronise_statistics(without, CPU) is without


def test_every_rank_and_every_phase_draws_its_own_dropout() -> None:
    drawn = []
    with forked_generators(CPU):
        for phase in range(2):
            for ranks in (ONE_PROCESS, Ranks(1, 3), Ranks(2, 3)):
                seed_phase(5, phase, ranks)
                drawn.append(float(torch.rand(())))
        seed_phase(5, 0, ONE_PROCESS)
        assert float(torch.rand(())) == drawn[0]
    assert len(set(drawn)) == 6


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with process_group("cpu") as ranks:
        assert ranks == ONE_PROCESS
    with pytest.raises(RuntimeError, match="Connection closed by peer"), process_group("cpu"):
        raise RuntimeError("Connection closed by peer")  # not ours to explain: no torchrun
    assert issubclass(RankError, ValueError)


@pytest.mark.parametrize(
    ("variable", "local_size", "expected"), [("1", 2, [4]), ("1", 16, [1]), ("3", 2, []), (None, 2, [])]
)
def test_processes_share_the_cores_of_their_host_where_torchrun_gave_each_one_thread(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, local_size: int, expected: list[int]
) -> None:
    threads: list[int] = []
    numbers = {"RANK": 1, "WORLD_SIZE": 32, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": local_size, "MASTER_PORT": 1}
    for name, value in (*numbers.items(), ("MASTER_ADDR", "")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    monkeypatch.setattr("ftexp.machine.distributed.available_cores", lambda: 8)
    monkeypatch.setattr("ftexp.machine.distributed.store", lambda: None)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *_, **__: None)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    with process_group("cpu"):
        assert threads == expected


@pytest.mark.parametrize(("size", "fitting"), [(33, "a multiple of 2: 32 or 34"), (1, "a multiple of 2: 2")])
def test_a_batch_that_cannot_be_shared_is_refused(configure: Compose, size: int, fitting: str) -> None:
    check_shares(configure("train.batch_size=32"), Ranks(0, 2))
    check_shares(configure("train.batch_size=auto"), Ranks(0, 2))
    with pytest.raises(ConfigError, match=rf"size={size} is the batch size of all 2 processes .*Use {fitting}\."):
        check_shares(configure(f"train.batch_size={size}"), Ranks(0, 2))


@pytest.mark.parametrize("given", ["auto", "4"])
def test_a_run_goes_on_with_as_many_processes_as_can_share_its_batches(configure: Compose, given: str) -> None:
    config = configure(f"train.batch_size={given}")
    begun = RunIdentity({}, DataIdentity([], "", "", []), {}, batch_size=4)
    check_shares(config, Ranks(0, 2), begun)
    with pytest.raises(ConfigError, match=r"batches of 4 images, which 3 processes .* processes that divides 4"):
        check_shares(config, Ranks(0, 3), begun)


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_graphs_are_refused_in_several_processes(configure: Compose, mode: str) -> None:
    config = configure("runtime.device=cpu", "runtime.compile=true", f"runtime.compile_mode={mode}")
    check_graphs(config, prepare_runtime(config.runtime))
    with pytest.raises(
        ConfigError, match=rf"compile_mode={mode} .* the 2 processes .*Use runtime\.compile_mode=default"
    ):
        check_graphs(config, prepare_runtime(config.runtime, Ranks(0, 2)))
    harmless = configure("runtime.device=cpu", f"runtime.compile_mode={mode}")
    check_graphs(harmless, prepare_runtime(harmless.runtime, Ranks(0, 2)))


@pytest.mark.parametrize("mode", ["default", "max-autotune-no-cudagraphs"])
def test_several_processes_may_compile_without_graphs(configure: Compose, mode: str) -> None:
    config = configure("runtime.device=cpu", "runtime.compile=true", f"runtime.compile_mode={mode}")
    check_graphs(config, prepare_runtime(config.runtime, Ranks(0, 2)))


class Pretended(Ranks):
    """One of several processes, of which there are no others: each would make what the main one makes."""

    def broadcast(self, make: Callable[[], T]) -> T:
        return make()

    def first_on_host(self, make: Callable[[], T]) -> T:
        return make()


def leave_out_files(monkeypatch: pytest.MonkeyPatch, network: Network, **others: object) -> None:
    """Let a run prepare eight images and this network, without reading images or weights."""
    splits = SimpleNamespace(classes=("a", "b"), train=[0] * 8, val=[])
    instead = {
        "read_recorded": lambda *_, **__: splits,
        "locate_weights": lambda *_: None,
        "build_network": lambda *_: network,
        **others,
    }
    for name, function in instead.items():
        monkeypatch.setattr(f"ftexp.preparation.prepare.{name}", function)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_main_process_alone_lists_the_images(
    configure: Compose, network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rank: int
) -> None:
    identified = DataIdentity([], "", "", [])
    leave_out_files(monkeypatch, network, _identify=lambda *_: identified)
    config = configure("runtime.device=cpu", "stage=partial", "train.batch_size=8")
    with forked_generators(CPU):
        prepared = prepare(config, tmp_path, Pretended(rank, 2), score_test=False)
    assert prepared.data is (identified if rank == 0 else None)


def test_they_are_refused_before_data_is_read(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftexp.preparation.prepare.read_recorded", None)  # calling it would be a TypeError
    config = configure("runtime.device=cpu", "runtime.compile=true", "runtime.compile_mode=max-autotune")
    with pytest.raises(ConfigError, match="records CUDA graphs"):
        prepare(config, tmp_path, Pretended(0, 2), score_test=False)


def test_batch_sizes_are_measured_before_synchronised_layers_are_put_in(
    configure: Compose, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that runs out of memory in the middle of a trial step would leave the others waiting in such a layer."""
    calls = []

    def settle(config: Config, *_: object) -> Config:
        calls.append("settle")
        return config

    def synchronise(module: nn.Module, device: torch.device) -> nn.Module:
        calls.append("synchronise")
        return module

    leave_out_files(monkeypatch, network, _identify=lambda *_: None)
    monkeypatch.setattr("ftexp.preparation.settle.settle_batch_size", settle)
    monkeypatch.setattr("ftexp.preparation.settle.synchronise_statistics", synchronise)
    with forked_generators(CPU):
        prepare(
            configure("runtime.device=cpu", "stage=partial", "bn_policy=train"),
            tmp_path,
            Pretended(0, 2),
            score_test=False,
        )
    assert calls == ["settle", "synchronise"]
