"""Lightning's ``BackboneFinetuning`` as in its documentation: Adam at 1e-3 for a head of two layers, then for all.

The backbone starts to learn at epoch 10 of the 15 that Lightning's example of fine-tuning makes, or after two thirds of
fewer: at a hundredth of the head's rate, 1.5 times more each epoch. Images are resized and flipped, as in that example.
The last weights are kept, as Lightning does by default; batches of 32, for which it has no default.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import budget
import lightning
import task
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, Callback
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

RATE, HIDDEN, BATCH_SIZE = 1e-3, 512, 32
UNFREEZE_AT, GROWTH, BACKBONE_RATIO = 10, 1.5, 0.1


class Classifier(lightning.LightningModule):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = task.build_network(task.BUNDLED, 0)
        layers = (nn.Flatten(), nn.Linear(self.backbone.num_features, HIDDEN), nn.ReLU())
        self.head = nn.Sequential(*layers, nn.Linear(HIDDEN, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        images, labels = batch
        self.log("val_accuracy", (self(images).argmax(dim=1) == labels).float().mean())

    def predict_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        return self(batch[0]).softmax(dim=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.head.parameters(), lr=RATE)


class Clock(Callback):
    def __init__(self, trial: budget.Trial) -> None:
        self.trial = trial

    def on_train_batch_end(self, *_: object) -> None:
        self.trial.update()


def transform(image_size: int, *augmentations: v2.Transform) -> v2.Compose:
    return task.to_tensors(v2.Resize((image_size, image_size)), *augmentations)


@contextmanager
def trainer(device: str, callbacks: list[Callback], **limits: int) -> Iterator[lightning.Trainer]:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    with tempfile.TemporaryDirectory() as folder:
        yield lightning.Trainer(
            accelerator=device,
            devices=1,
            default_root_dir=folder,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            callbacks=callbacks,
            **quiet,
            **limits,
        )


def measure(train_set: ImageFolder, device: str) -> budget.Pace:
    """The pace at which all weights learn."""
    trial, size = budget.Trial(), min(BATCH_SIZE, len(train_set))
    loader = DataLoader(train_set, batch_size=size, shuffle=True, drop_last=True)
    callbacks = [Clock(trial), BackboneFinetuning(unfreeze_backbone_at_epoch=0)]
    with trainer(device, callbacks, max_steps=budget.trial_updates(size)) as short:
        short.fit(Classifier(len(train_set.classes)), loader)
    return trial.pace(size)


def schedule(affordable: float) -> tuple[int, int]:
    """All epochs and those of the frozen backbone, for the price of so many epochs of all weights."""
    frozen_share = 2 / 3
    price = frozen_share * budget.SCORED + 1 - frozen_share
    epochs = max(1, int(min(affordable / price, affordable + UNFREEZE_AT * (1 - budget.SCORED))))
    return epochs, max(1, min(UNFREEZE_AT, int(epochs * frozen_share)))


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    arguments = budget.read_arguments()
    train_set = ImageFolder(arguments.root / "train", transform(arguments.image_size, v2.RandomHorizontalFlip()))
    still = transform(arguments.image_size)
    val_set, test_set = (ImageFolder(arguments.root / name, still) for name in ("val", "test"))
    train = DataLoader(train_set, batch_size=BATCH_SIZE, shuffle=True)
    val, test = (DataLoader(one, batch_size=BATCH_SIZE) for one in (val_set, test_set))
    pace = measure(train_set, arguments.device)
    counts = (len(train_set), len(val_set), len(test_set))
    epochs, frozen = schedule(pace.epochs(budget.seconds_left(arguments, 0), *counts))
    lightning.seed_everything(arguments.seed, verbose=False)
    finetuning = BackboneFinetuning(frozen, lambda _: GROWTH, BACKBONE_RATIO)
    model = Classifier(len(train_set.classes))
    with trainer(arguments.device, [finetuning], max_epochs=epochs) as whole:
        whole.fit(model, train, val)
        chances = torch.cat(whole.predict(model, test))
    budget.write(arguments, [path for path, _ in test_set.samples], train_set.classes, chances.tolist())


if __name__ == "__main__":
    main()
