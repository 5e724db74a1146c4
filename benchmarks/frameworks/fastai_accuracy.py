"""fastai as in its first example: ``vision_learner``, ``Resize(460)``, ``aug_transforms`` and ``fine_tune``.

One epoch trains fastai's own head, then as many as fit train all weights, in batches of 64, with one cycle each.
"""

from __future__ import annotations

from pathlib import Path

import budget
import task
from fastai.vision.all import (
    Callback,
    CancelFitException,
    CategoryBlock,
    DataBlock,
    DataLoaders,
    GrandparentSplitter,
    ImageBlock,
    Learner,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    get_image_files,
    parent_label,
    set_seed,
    vision_learner,
)
from torch import nn

# The documentation resizes to 460 before it crops 224.
BEFORE_CROP, BATCH_SIZE = 460 / 224, 64


class Clock(Callback):
    """Ends a fit after the updates of a trial."""

    def __init__(self, trial: budget.Trial, updates: int) -> None:
        self.trial, self.updates = trial, updates

    def after_batch(self) -> None:
        if self.training:
            self.trial.update()
            if len(self.trial.updates) == self.updates:
                raise CancelFitException


def images_of(folder: Path) -> list[Path]:
    return list(get_image_files(folder, folders=["train", "val"]))


def load(root: Path, image_size: int, device: str) -> DataLoaders:
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=images_of,
        splitter=GrandparentSplitter(train_name="train", valid_name="val"),
        get_y=parent_label,
        item_tfms=Resize(round(BEFORE_CROP * image_size)),
        batch_tfms=[*aug_transforms(size=image_size), Normalize.from_stats(task.HALF, task.HALF)],
    )
    # The last, smaller batch of an epoch is left out; a smaller training set is one batch.
    return block.dataloaders(root, bs=min(BATCH_SIZE, len(list((root / "train").glob("*/*")))), device=device)


def network(pretrained: bool) -> nn.Module:
    assert pretrained
    return task.build_network(task.BUNDLED, 0)


def body(model: nn.Module) -> nn.Module:
    return nn.Sequential(model.conv_stem, model.bn1, model.blocks, model.conv_head, model.bn2)


def build(data: DataLoaders) -> Learner:
    return vision_learner(data, network, cut=body, metrics=accuracy)


def measure(data: DataLoaders) -> budget.Pace:
    """The pace at which all weights learn."""
    learner = build(data)
    learner.unfreeze()
    trial, updates = budget.Trial(), budget.trial_updates(data.bs)
    with learner.no_bar(), learner.no_logging():
        learner.fit(updates, cbs=Clock(trial, updates))
    return trial.pace(data.bs)


def main() -> None:
    arguments = budget.read_arguments()
    data = load(arguments.root, arguments.image_size, arguments.device)
    pace = measure(data)
    set_seed(arguments.seed)
    learner = build(data)
    files = sorted((arguments.root / "test").glob("*/*"))
    counts = (len(data.train) * data.bs, len(data.valid_ds), len(files))
    epochs = pace.epochs(budget.seconds_left(arguments, 0), *counts)
    with learner.no_bar(), learner.no_logging():
        # The first epoch trains the head alone.
        learner.fine_tune(max(1, int(epochs - budget.SCORED)))
        chances, _ = learner.get_preds(dl=data.test_dl(files))
    budget.write(arguments, [str(file) for file in files], list(data.vocab), chances.tolist())


if __name__ == "__main__":
    main()
