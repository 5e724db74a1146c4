"""Fine-tuning by the recipe of timm's ``train.py``, which its wheel lacks: its loader, prefetcher and scheduler.

As ``train.py --amp --amp-dtype bfloat16 --channels-last --pin-mem --no-aug``: images are uint8 until the prefetcher
normalises them on the device, where it copies the next batch while one is computed.
"""

from __future__ import annotations

from contextlib import nullcontext

import task
import torch
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.scheduler import create_scheduler_v2
from timm.utils import dispatch_clip_grad


def main() -> None:
    arguments = task.read_arguments()
    torch.manual_seed(arguments.seed)
    device, on_cuda = torch.device(arguments.device), arguments.device == "cuda"
    sets, loaders = [], []
    for split in ("train", "val"):
        sets.append(create_dataset("", root=str(arguments.root / split), is_training=split == "train"))
        loaders.append(
            create_loader(
                sets[-1],
                (3, arguments.image_size, arguments.image_size),
                arguments.batch_size,
                is_training=split == "train",
                no_aug=True,
                interpolation="bicubic",
                crop_pct=224 / 256,
                mean=task.HALF,
                std=task.HALF,
                num_workers=arguments.workers,
                persistent_workers=arguments.workers > 0,
                pin_memory=on_cuda,
                use_prefetcher=on_cuda,
                device=device,
            )
        )
    model = task.build_network(arguments.model, len(sets[0].reader.class_to_idx))
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(task.param_groups(model, arguments.stage), weight_decay=task.WEIGHT_DECAY)
    updates = len(loaders[0])
    scheduler, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=arguments.epochs, step_on_epochs=False, updates_per_epoch=updates
    )
    loss_fn = LabelSmoothingCrossEntropy(0.1)
    mixed = torch.autocast("cuda", torch.bfloat16) if on_cuda else nullcontext()
    best, stopwatch = 0.0, task.Stopwatch()
    for epoch in range(arguments.epochs):
        model.train()
        task.keep_batchnorm_still(model)
        stopwatch.start()
        for number, (images, labels) in enumerate(loaders[0]):
            with mixed:
                loss = loss_fn(model(images.contiguous(memory_format=torch.channels_last)), labels)
            loss.backward()
            dispatch_clip_grad(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step_update(epoch * updates + number + 1)
        stopwatch.stop(updates * arguments.batch_size)  # the last batch of an epoch is dropped if it is smaller
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in loaders[1]:
                with mixed:
                    logits = model(images.contiguous(memory_format=torch.channels_last))
                correct += (logits.argmax(dim=1) == labels).sum().item()
        best = max(best, correct / len(sets[1]))
    task.report(best, stopwatch)


if __name__ == "__main__":
    main()
