"""A hand-written training loop: frozen backbone, AdamW, gradient clipping, ``.item()`` at every step."""

from __future__ import annotations

import task
import torch
from torch import nn
from torch.utils.data import DataLoader


def main() -> None:
    arguments = task.read_arguments()
    torch.manual_seed(arguments.seed)
    train_set, val_set = task.folders(arguments.root, arguments.image_size)
    options = {"batch_size": arguments.batch_size, "num_workers": arguments.workers}
    model = task.build_network(arguments.model, len(train_set.classes)).to(arguments.device)
    optimizer = torch.optim.AdamW(task.param_groups(model, arguments.stage), weight_decay=task.WEIGHT_DECAY)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    train, val = DataLoader(train_set, shuffle=True, **options), DataLoader(val_set, **options)
    best, stopwatch = 0.0, task.Stopwatch()
    for _ in range(arguments.epochs):
        model.train()
        task.keep_batchnorm_still(model)
        stopwatch.start()
        for images, labels in train:
            logits = model(images.to(arguments.device))
            loss = loss_fn(logits, labels.to(arguments.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss.item()
        stopwatch.stop(len(train_set))
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in val:
                predicted = model(images.to(arguments.device)).argmax(dim=1)
                correct += (predicted == labels.to(arguments.device)).sum().item()
        best = max(best, correct / len(val_set))
    task.report(best, stopwatch)


if __name__ == "__main__":
    main()
