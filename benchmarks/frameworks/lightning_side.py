"""Fine-tuning with Lightning 2 and finetuning-scheduler: phase 0 of a schedule has the trainable blocks."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import lightning
import task
import torch
import yaml
from finetuning_scheduler import FinetuningScheduler
from torch import nn
from torch.utils.data import DataLoader


class Classifier(lightning.LightningModule):
    def __init__(self, name: str, num_classes: int, stage: str) -> None:
        super().__init__()
        self.network = task.build_network(name, num_classes)
        self.stage = stage
        self.stopwatch = task.Stopwatch()
        self.num_images = 0
        self.loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
        self.best = 0.0

    def on_train_epoch_start(self) -> None:
        task.keep_batchnorm_still(self.network)
        self.stopwatch.start()
        self.num_images = 0

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch
        self.num_images += len(labels)
        return self.loss_fn(self.network(images), labels)

    def on_validation_epoch_start(self) -> None:
        self.stopwatch.stop(self.num_images)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        images, labels = batch
        logits = self.network(images)
        self.log("val_loss", self.loss_fn(logits, labels))
        self.log("val_accuracy", (logits.argmax(dim=1) == labels).float().mean())

    def on_validation_epoch_end(self) -> None:
        self.best = max(self.best, self.trainer.callback_metrics["val_accuracy"].item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = task.param_groups(self.network, self.stage)
        return torch.optim.AdamW(groups, weight_decay=task.WEIGHT_DECAY)


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    arguments = task.read_arguments()
    lightning.seed_everything(arguments.seed, verbose=False)
    train_set, val_set = task.folders(arguments.root, arguments.image_size)
    options = {"batch_size": arguments.batch_size, "num_workers": arguments.workers}
    options["persistent_workers"] = arguments.workers > 0
    model = Classifier(arguments.model, len(train_set.classes), arguments.stage)
    task.param_groups(model.network, arguments.stage)
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with tempfile.TemporaryDirectory() as folder:
        schedule = Path(folder) / "schedule.yaml"
        schedule.write_text(yaml.safe_dump({0: {"params": learning, "max_transition_epoch": arguments.epochs}}))
        trainer = lightning.Trainer(
            max_epochs=arguments.epochs,
            accelerator=arguments.device,
            devices=1,
            precision="bf16-mixed" if arguments.device == "cuda" else "32-true",
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            callbacks=[FinetuningScheduler(ft_schedule=str(schedule), epoch_transitions_only=True)],
        )
        trainer.fit(model, DataLoader(train_set, shuffle=True, **options), DataLoader(val_set, **options))
    task.report(model.best, model.stopwatch)


if __name__ == "__main__":
    main()
