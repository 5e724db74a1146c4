"""fastai 2: a Learner over an image folder with a splitter of the blocks, frozen, by ``fit_one_cycle``."""

from __future__ import annotations

import task
import torch
from fastai.data.transforms import GrandparentSplitter
from fastai.losses import LabelSmoothingCrossEntropy
from fastai.metrics import accuracy
from fastai.vision.all import (
    CategoryBlock,
    DataBlock,
    GradientClip,
    ImageBlock,
    Learner,
    Normalize,
    Resize,
    ResizeMethod,
    get_image_files,
    parent_label,
    set_seed,
)


def main() -> None:
    arguments = task.read_arguments()
    set_seed(arguments.seed)
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=get_image_files,
        splitter=GrandparentSplitter(train_name="train", valid_name="val"),
        get_y=parent_label,
        item_tfms=Resize(arguments.image_size, method=ResizeMethod.Crop),
        batch_tfms=Normalize.from_stats(task.HALF, task.HALF),
    )
    data = block.dataloaders(arguments.root, bs=arguments.batch_size, num_workers=arguments.workers, device="cpu")
    model = task.pretrained(len(data.vocab))

    def split(network: torch.nn.Module) -> list[list[torch.nn.Parameter]]:
        learning = task.learning_modules(network, arguments.stage)
        groups = [[p for module in part for p in module.parameters()] for part in (learning[:-1], learning[-1:])]
        taken = {id(p) for group in groups for p in group}
        return [[p for p in network.parameters() if id(p) not in taken], *(group for group in groups if group)]

    learner = Learner(
        data,
        model,
        loss_func=LabelSmoothingCrossEntropy(0.1),
        splitter=split,
        metrics=accuracy,
        wd=task.WEIGHT_DECAY,
        cbs=GradientClip(1.0),
        train_bn=False,
    )
    learner.freeze_to(1)
    rates = [0.0, task.BLOCK_LR, task.HEAD_LR] if arguments.stage == "partial" else [0.0, task.HEAD_LR]
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(arguments.epochs, rates)
    task.report(max(float(values[2]) for values in learner.recorder.values))


if __name__ == "__main__":
    main()
