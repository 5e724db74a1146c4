"""Changes of colour of whole batches beside torchvision's of single images; more of them in test_batch_policies."""

from __future__ import annotations

import torch
from torchvision.transforms.v2 import functional

from ftexp.data.augment.batch_colors import adjust_brightness, adjust_contrast, adjust_saturation


def test_each_image_has_a_factor_of_its_own() -> None:
    images = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 255
    factors = torch.tensor([[1.3, 0.7], [0.6, 1.5], [1.4, 0.2]])
    jittered = adjust_brightness(images, factors[0])
    jittered = adjust_saturation(adjust_contrast(jittered, factors[1]), factors[2])
    for image, (brightness, contrast, saturation), mine in zip(images, factors.T.tolist(), jittered, strict=True):
        expected = functional.adjust_brightness(image / 255, brightness)
        expected = functional.adjust_saturation(functional.adjust_contrast(expected, contrast), saturation)
        assert torch.allclose(mine / 255, expected, atol=2e-3)  # its weights of the colours have four digits
