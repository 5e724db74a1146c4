"""Which engine runs the frozen blocks, and its exported file in the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import fresh_network

from ftexp.data.loading.tensor_store import TensorStore
from ftexp.errors import DeviceError
from ftexp.machine.runtime import Runtime
from ftexp.models.onnx_prefix import ExportError
from ftexp.models.prefix import Prefix, split
from ftexp.training.inputs import frozen_engine, prefix_key
from ftexp.training.inputs.frozen_engine import LEAST_WORK, Engine, choose_engine, engine_of
from ftexp.training.inputs.prefix_key import engine_digest

CPU = Runtime(torch.device("cpu"), "fp32", False, torch.contiguous_format, 0)
IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def engine(store: TensorStore, asked: str = "onnxruntime", frozen: str = "digest") -> Engine:
    network = fresh_network()
    network.module.eval()
    prefix, _ = split(network, "body")
    assert isinstance(prefix, Prefix)
    return engine_of(asked, network, prefix, frozen, store)


@pytest.mark.parametrize(
    ("asked", "images", "blocks", "runtime", "chosen"),
    [
        ("auto", LEAST_WORK // 8, 8, CPU, "onnxruntime"),
        ("auto", LEAST_WORK // 8 - 1, 8, CPU, "eager"),
        ("auto", 10 * LEAST_WORK, 0, CPU, "eager"),
        ("auto", 10 * LEAST_WORK, 8, replace(CPU, precision="bf16"), "eager"),
        ("auto", 10 * LEAST_WORK, 8, replace(CPU, device=torch.device("cuda")), "eager"),
        ("eager", 10 * LEAST_WORK, 8, CPU, "eager"),
        ("onnxruntime", 1, 1, CPU, "onnxruntime"),
    ],
)
def test_auto_goes_by_the_number_of_images_and_frozen_blocks(
    asked: str, images: int, blocks: int, runtime: Runtime, chosen: str
) -> None:
    assert choose_engine(asked, images, blocks, runtime) == chosen


def test_onnx_runtime_is_refused_where_it_cannot_run() -> None:
    with pytest.raises(DeviceError, match=r"onnxruntime needs the CPU and fp32, and this run is on cuda in fp32\. Use"):
        choose_engine("onnxruntime", 1, 1, replace(CPU, device=torch.device("cuda")))


def test_a_second_run_exports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TensorStore(tmp_path, 1.0)
    first = engine(store).open()(IMAGES)
    monkeypatch.setattr(frozen_engine, "export_prefix", None)  # calling it would be a TypeError
    again = engine(TensorStore(tmp_path, 1.0))
    assert again.name == "onnxruntime"
    assert torch.equal(again.open()(IMAGES), first)
    torch.testing.assert_close(first, engine(store, "eager").open()(IMAGES), rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError):
        engine(store, frozen="other weights")


def test_torch_runs_what_cannot_be_exported_and_one_line_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise ExportError("torch cannot export it (no operator)")

    monkeypatch.setattr(frozen_engine, "export_prefix", refuse)
    store, line = TensorStore(tmp_path, 1.0), "tiny instead of ONNX Runtime: torch cannot export it (no operator)"
    refused = engine(store)
    assert refused.name == "eager"
    assert caplog.messages == [f"cache   torch runs the frozen blocks of {line}"]
    monkeypatch.setattr(frozen_engine, "export_prefix", None)  # it is not tried again
    assert torch.equal(engine(store).open()(IMAGES), engine(store, "eager").open()(IMAGES))


def test_a_file_that_the_cache_has_no_room_for_is_used_all_the_same(tmp_path: Path) -> None:
    small = engine(TensorStore(tmp_path, 1e-9))
    assert small.name == "onnxruntime"
    assert small.open()(IMAGES).shape == (3, 4, 8, 8)
    assert not list(tmp_path.glob("*.safetensors"))


def test_each_engine_and_version_has_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_digest("a", "eager") == "a", "what was cached before there was another engine stays of use"
    keys = {engine_digest("a", "onnxruntime"), engine_digest("b", "onnxruntime"), "a"}
    for changed in ("onnx", "onnxruntime"):
        monkeypatch.setattr(prefix_key, "version", lambda name, changed=changed: "2" if name == changed else "1")
        keys.add(engine_digest("a", "onnxruntime"))
    assert len(keys) == 5
