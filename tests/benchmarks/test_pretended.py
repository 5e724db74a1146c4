"""The pretended accelerator refuses what a GPU refuses, and counts what a GPU would copy and wait for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from benchmarks.pretended.backend import pretended
from benchmarks.pretended.counts import Counts, Snapshot

Use = Callable[[Tensor], object]


@pytest.fixture
def counts() -> Iterator[Counts]:
    with pretended() as counted:
        yield counted


def on_device() -> Tensor:
    return torch.arange(6.0).view(2, 3).to("pretended")


def test_a_network_learns_there_as_it_does_on_the_cpu(counts: Counts) -> None:
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    losses: dict[str, list[float]] = {}
    for device, fused in (("cpu", False), ("pretended", True)):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        parameters = list(network.parameters())
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert {p.device.type for p in network.parameters()} == {device}
        assert all(a is b for a, b in zip(parameters, network.parameters(), strict=True)), "as Module.to promises"
        optimizer = torch.optim.AdamW(parameters, fused=fused)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            losses.setdefault(device, []).append(loss.item())
    assert losses["pretended"] == pytest.approx(losses["cpu"], rel=1e-5)


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda x: x + 1, Snapshot()),
        (lambda x: x * torch.tensor(2.0), Snapshot()),  # a number on the CPU is an argument of the kernel
        (lambda x: torch.zeros(3, device=x.device) + torch.arange(3, device=x.device), Snapshot()),
        (lambda x: x.sum().item(), Snapshot(0, 1, 1)),
        (lambda x: bool(x.any()), Snapshot(0, 1, 1)),
        (lambda x: x.cpu(), Snapshot(0, 1, 1)),
        (lambda x: x.tolist(), Snapshot(0, 1, 1)),
        (lambda x: x.nonzero(), Snapshot(0, 1, 1)),
        (lambda x: x[x > 2], Snapshot(0, 1, 1)),
        (lambda x: x[:, [0, 2]], Snapshot(1, 0, 1)),
        (lambda x: x.index_select(1, torch.arange(2, device=x.device)), Snapshot()),
        (lambda x: torch.ones(3).to(x.device), Snapshot(1, 0, 1)),
        (lambda x: torch.tensor([1.0, 2.0], device=x.device), Snapshot(1, 0, 1)),
        (lambda x: torch.ones(3).pin_memory().to(x.device), Snapshot(1, 0, 1)),
        (lambda x: torch.ones(3).to(x.device, non_blocking=True), Snapshot(1, 0, 1)),
        (lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True), Snapshot(1, 0, 0)),
        (lambda x: torch.empty(3, pin_memory=True)[:2].to(x.device, non_blocking=True), Snapshot(1, 0, 0)),
        (lambda x: torch.ones(3).pin_memory().to(x.device, torch.int64, non_blocking=True), Snapshot(1, 0, 1)),
        (
            lambda x: (
                torch.ones(2, 3, 4, 4).pin_memory().to(x.device, non_blocking=True, memory_format=torch.channels_last)
            ),
            Snapshot(1, 0, 1),
        ),
    ],
)
def test_copies_and_waits_are_counted(counts: Counts, use: Use, expected: Snapshot) -> None:
    tensor = on_device()
    counts.clear()
    use(tensor)
    assert counts.now() == expected
    counts.clear()
    with torch.inference_mode():
        use(tensor)
    assert counts.now() == expected, "in inference mode torch takes operations apart elsewhere"


@pytest.mark.usefixtures("counts")
@pytest.mark.parametrize("use", [lambda x: x + torch.ones(3), lambda x: x @ torch.ones(3, 2), lambda x: x.numpy()])
def test_tensors_of_two_devices_and_shared_memory_are_refused(use: Use) -> None:
    with pytest.raises(RuntimeError, match=r"one is on cpu|numpy\(\) is not supported"):
        use(on_device())


def test_writing_to_pinned_memory_before_it_has_been_copied_is_noticed(counts: Counts) -> None:
    source = torch.ones(3).pin_memory()
    copy = source.to("pretended", non_blocking=True)
    counts.waited()
    source.zero_()
    again = source.to("pretended", non_blocking=True)
    source.fill_(2)
    with pytest.raises(AssertionError, match="written to before it had been copied"):
        again.sum().item()
    assert copy.tolist() == [1, 1, 1], "which is counted after the first wait, and fine"


def test_random_numbers_come_from_a_generator_of_its_own(counts: Counts) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = torch.rand(3, device="pretended").tolist()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    assert torch.rand(3, device="pretended").tolist() == first


@pytest.mark.usefixtures("counts")
def test_tensors_have_addresses_of_their_own() -> None:
    first, second = on_device(), nn.Parameter(on_device())
    assert first.data_ptr() == first.view(6).data_ptr() != second.data_ptr() == second.detach().data_ptr()


@pytest.mark.usefixtures("counts")
def test_a_forked_process_may_not_use_it() -> None:
    tensor = on_device()
    child = os.fork()
    if child == 0:
        try:
            tensor + 1
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
