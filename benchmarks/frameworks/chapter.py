"""The chapter's own loop: frozen backbone, AdamW on what learns, clipping, ``.item()`` at every step."""

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
    model = task.pretrained(len(train_set.classes))
    optimizer = torch.optim.AdamW(task.param_groups(model, arguments.stage), weight_decay=task.WEIGHT_DECAY)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    train, val = DataLoader(train_set, shuffle=True, **options), DataLoader(val_set, **options)
    best = 0.0
    for _ in range(arguments.epochs):
        model.train()
        task.keep_batchnorm_still(model)
        for images, labels in train:
            logits = model(images)
            loss = loss_fn(logits, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss.item()
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in val:
                correct += (model(images).argmax(dim=1) == labels).sum().item()
        best = max(best, correct / len(val_set))
    task.report(best)


if __name__ == "__main__":
    main()
