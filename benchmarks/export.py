"""Does an exported file answer as its network does, for many architectures and image sizes?

    python -m benchmarks.export [--models resnet50 vit_b_16 ...] [--formats onnx torch_export openvino]

Every network is written in every format and certified on 64 pieces, of 16 sizes, of the two photographs that come with
scikit-learn. Weights are random but for efficientnet_lite0, whose ImageNet weights come with a package. "Pillow apart"
is the largest difference of probabilities when, in the network's own runtime, images are resized by torch's antialiased
interpolation, which rounds once, in the place of Pillow, which rounds after each of its two passes. Appends a table to
benchmarks/results.md, after each network.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from sklearn.datasets import load_sample_images
from torch.nn import functional as F
from torchvision.transforms import v2

from benchmarks.results import append_rows, machine, versions
from ftexp.config import parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.data.augment.transforms import eval_transform
from ftexp.data.samples import Sample
from ftexp.errors import ConfigError
from ftexp.exporting.certificate import certify
from ftexp.exporting.exported import open_exported
from ftexp.exporting.formats import FORMATS, module_of
from ftexp.exporting.graph import ClassifierGraph
from ftexp.exporting.metadata import ExportMetadata
from ftexp.inference.engine import NetworkEngine
from ftexp.models.blocks import Network
from ftexp.models.catalogue import build_network, locate_weights
from ftexp.preprocessing import Preprocessing
from ftexp.run_identity import installed_versions

SECTION = "Exported files beside their networks"
MODELS = (
    "efficientnet_lite0",
    "resnet50",
    "vit_b_16",
    "convnext_tiny",
    "swin_t",
    "mobilenet_v3_large",
    "timm:mobilenetv4_conv_small",
    "timm:vit_tiny_patch16_224",
    "timm:regnety_002",
)
SIDES = ((224, 224), (256, 341), (375, 500), (500, 375), (200, 300), (427, 640), (120, 90), (400, 400))


def photographs() -> list[Sample]:
    """64 pieces, of 16 sizes, the labels of which say nothing."""
    pictures = load_sample_images().images
    rng = np.random.default_rng(0)
    sizes = [*SIDES, *((height * 2 // 3, width * 2 // 3) for height, width in SIDES)]
    found = []
    for number in range(64):
        (height, width), picture = sizes[number % len(sizes)], pictures[number % 2]
        height, width = min(height, picture.shape[0]), min(width, picture.shape[1])
        top, left = (rng.integers(0, room + 1) for room in (picture.shape[0] - height, picture.shape[1] - width))
        found.append(Sample(f"{number}", "0", pixels=picture[top : top + height, left : left + width].copy()))
    return found


def build(name: str) -> Network:
    """Of the catalogue, or, as ``timm:NAME``, of timm."""
    chosen = [f"model={name}"] if not name.startswith("timm:") else ["model=timm", f"model.name={name[5:]}"]
    with initialize_config_dir(str(conf_dir())):
        config = parse(compose("config", overrides=chosen)).model
    weights = None
    if config.weights_package is not None:
        weights = locate_weights(config)
    else:
        config.weights = None
    torch.manual_seed(0)
    network = build_network(config, weights, 1000 if weights else 10, None)
    network.module.eval()
    return network


def pillow_apart(network: Network, samples: list[Sample]) -> float:
    """The largest difference of probabilities that the resizing makes, all else equal."""
    engine, largest = NetworkEngine(network, 1.0, "cpu"), 0.0
    steps = eval_transform(network.preprocessing)
    for sample in samples:
        image = torch.from_numpy(sample.pixels).permute(2, 0, 1)
        other = _resized_by_torch(image, network.preprocessing)
        ours = engine.prepare(v2.functional.to_pil_image(image))
        assert torch.equal(ours, steps(v2.functional.to_pil_image(image)))
        one, two = engine.probabilities([ours, other])
        largest = max(largest, float(np.abs(one - two).max()))
    return largest


def _resized_by_torch(image: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    size = preprocessing.resize_size
    height, width = image.shape[1:]
    short = min(height, width)
    squash = preprocessing.crop_mode == "squash"
    sides = (size, size) if squash else (size * height // short, size * width // short)
    resized = F.interpolate(image[None].float(), sides, mode=preprocessing.interpolation, antialias=True)[0]
    return v2.functional.center_crop(resized.round().clamp(0, 255), preprocessing.image_size).to(torch.uint8)


def measure(name: str, network: Network, form: str, samples: list[Sample], apart: float) -> dict[str, object]:
    """A row of the table."""
    classes = tuple(map(str, range(network.num_classes)))
    metadata = ExportMetadata(classes, network.preprocessing, "-", network.name, "fp32", 1.0, installed_versions())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model{FORMATS[form].suffix}"
        begun = time.perf_counter()
        module_of(form).write(ClassifierGraph(network), metadata, file, ())
        seconds = time.perf_counter() - begun
        engine, _ = open_exported(file)
        found = certify(NetworkEngine(network, 1.0, "cpu"), engine, classes, samples, 0.0)
    return {
        "date": date.today(),
        "network": name,
        "format": form,
        "largest gap": f"{found.largest_difference:.1e}",
        "mean gap": f"{found.mean_difference:.1e}",
        "agreement": f"{found.agreement:.4f}",
        "Pillow apart": f"{apart:.1e}",
        "s to write": f"{seconds:.0f}",
        "ms an image, network": f"{1000 * found.seconds_per_image:.1f}",
        "ms an image, file": f"{1000 * found.exported_seconds_per_image:.1f}",
        "machine": machine(),
        "versions": versions(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--formats", nargs="+", default=("onnx", "torch_export"))
    given = parser.parse_args()
    register_schema()
    samples = photographs()
    for name in given.models:
        network = build(name)
        apart = pillow_apart(network, samples)
        for form in given.formats:
            try:
                row = measure(name, network, form, samples, apart)
            except ConfigError as error:
                print(f"{name} {form}: {error}")
                continue
            print({key: str(value) for key, value in row.items()}, flush=True)
            append_rows(SECTION, [row])


if __name__ == "__main__":
    main()
