"""A network of one product of matrices, which exporters take a second for, and what an exported file says of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ftexp.exporting.metadata import ExportMetadata
from ftexp.models.blocks import Block, Network
from ftexp.preprocessing import Preprocessing

CLASSES = ("red", "green", "blue")


class Colours(nn.Module):
    """Images [B, 3, 8, 8] -> logits [B, 3]: the mean of each colour, as far as a convolution leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.fc = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images).relu().mean(dim=(2, 3)))


def colours() -> Network:
    module = Colours()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        for colour in range(3):  # what is above the mean in one channel, and what is below it in the next
            module.conv.weight[2 * colour, colour, 1, 1] = 1
            module.conv.weight[2 * colour + 1, colour, 1, 1] = -1
            module.fc.weight[colour, 2 * colour : 2 * colour + 2] = torch.tensor([4.0, -4.0])
        module.conv.weight += 0.01
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preprocessing = Preprocessing(8, 9, "bicubic", mean, std)
    block = Block("stem", ("conv",))
    return Network(module, [block], head="fc", preprocessing=preprocessing, name="colours", num_classes=3)


def metadata_of(network: Network, precision: str = "fp32") -> ExportMetadata:
    versions = {"ftexp": "0.1.0"}
    return ExportMetadata(CLASSES, network.preprocessing, "outputs/a run", network.name, precision, 2.0, versions)
