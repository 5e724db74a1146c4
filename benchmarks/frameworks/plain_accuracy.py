"""A hand-written loop as in a tutorial: all weights learn, AdamW at 1e-4, flips and crops, the best epoch is kept."""

from __future__ import annotations

import copy
import math
import time

import budget
import task
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

RATE, SMALLEST_CROP = 1e-4, 0.5


def augmented(image_size: int) -> v2.Compose:
    return task.to_tensors(v2.RandomResizedCrop(image_size, (SMALLEST_CROP, 1)), v2.RandomHorizontalFlip())


@torch.no_grad()
def probabilities(model: nn.Module, loader: DataLoader, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    model.eval()
    found = [(model(images.to(device)).softmax(dim=1).cpu(), labels) for images, labels in loader]
    return torch.cat([chances for chances, _ in found]), torch.cat([labels for _, labels in found])


def main() -> None:
    arguments = budget.read_arguments()
    torch.manual_seed(arguments.seed)
    still, device = task.transform(arguments.image_size), arguments.device
    sets = [ImageFolder(arguments.root / name, still) for name in ("val", "test")]
    train_set = ImageFolder(arguments.root / "train", augmented(arguments.image_size))
    train = DataLoader(train_set, batch_size=32, shuffle=True)
    val, test = (DataLoader(one, batch_size=32) for one in sets)
    model = task.build_network(task.BUNDLED, len(train_set.classes)).to(device)
    optimizer, loss_fn = torch.optim.AdamW(model.parameters(), lr=RATE), nn.CrossEntropyLoss()
    began = time.monotonic()
    probabilities(model, val, device)
    scoring = time.monotonic() - began
    end = 1.0 + 1.5 * scoring * (1 + len(sets[1]) / len(sets[0]))
    whole, best, best_state = budget.seconds_left(arguments, end), -1.0, copy.deepcopy(model.state_dict())
    while (left := budget.seconds_left(arguments, end)) > 0:
        model.train()
        for images, labels in train:
            for group in optimizer.param_groups:
                group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * (1 - max(0.0, left) / whole)))
            loss = loss_fn(model(images.to(device)), labels.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if (left := budget.seconds_left(arguments, end)) <= 0:
                break
        chances, labels = probabilities(model, val, device)
        if (reached := float((chances.argmax(dim=1) == labels).float().mean())) > best:
            best, best_state = reached, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    chances, _ = probabilities(model, test, device)
    budget.write(arguments, [path for path, _ in sets[1].samples], train_set.classes, chances.tolist())


if __name__ == "__main__":
    main()
