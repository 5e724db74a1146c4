"""Fine-tuning with fastai 2: a frozen Learner, with a splitter of the blocks and ``fit_one_cycle``."""

from __future__ import annotations

import task
import torch
from fastai.data.transforms import GrandparentSplitter
from fastai.losses import LabelSmoothingCrossEntropy
from fastai.metrics import accuracy
from fastai.vision.all import (
    Callback,
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


class Clock(Callback):
    def __init__(self) -> None:
        self.stopwatch = task.Stopwatch()

    def before_train(self) -> None:
        self.stopwatch.start()

    def after_train(self) -> None:
        self.stopwatch.stop(len(self.dls.train) * self.dls.train.bs)


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
    options = {"bs": arguments.batch_size, "num_workers": arguments.workers, "device": arguments.device}
    data = block.dataloaders(arguments.root, **options)
    model = task.build_network(arguments.model, len(data.vocab))

    def split(network: torch.nn.Module) -> list[list[torch.nn.Parameter]]:
        learning = task.learning_modules(network, arguments.stage)
        groups = [[p for module in part for p in module.parameters()] for part in (learning[:-1], learning[-1:])]
        taken = {id(p) for group in groups for p in group}
        rest = [p for p in network.parameters() if id(p) not in taken]
        return [group for group in (rest, *groups) if group]

    clock = Clock()
    learner = Learner(
        data,
        model,
        loss_func=LabelSmoothingCrossEntropy(0.1),
        splitter=split,
        metrics=accuracy,
        wd=task.WEIGHT_DECAY,
        cbs=[GradientClip(1.0), clock],
        train_bn=False,
    )
    if arguments.device == "cuda":
        learner = learner.to_bf16()
    if arguments.stage != "full":
        learner.freeze_to(1)
    rates = {
        "head": [0.0, task.HEAD_LR],
        "partial": [0.0, task.BLOCK_LR, task.HEAD_LR],
        "full": [task.BLOCK_LR],
    }[arguments.stage]
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(arguments.epochs, rates)
    task.report(max(float(values[2]) for values in learner.recorder.values), clock.stopwatch)


if __name__ == "__main__":
    main()
