"""Fine-tuning of a timm network with the Trainer of Hugging Face transformers."""

from __future__ import annotations

import tempfile

import numpy as np
import task
import torch
from torch import nn
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.utils import logging


class Classifier(nn.Module):
    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        self.network = task.build_network(name, num_classes)
        self.loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        task.keep_batchnorm_still(self)
        return self

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.network(pixel_values)
        return {"loss": self.loss_fn(logits, labels), "logits": logits}


class Best(TrainerCallback):
    def __init__(self, num_images: int) -> None:
        self.accuracy = 0.0
        self.stopwatch = task.Stopwatch()
        self.num_images = num_images

    def on_epoch_begin(self, *_: object, **__: object) -> None:
        self.stopwatch.start()

    def on_epoch_end(self, *_: object, **__: object) -> None:
        self.stopwatch.stop(self.num_images)

    def on_evaluate(self, *_: object, metrics: dict[str, float], **__: object) -> None:
        self.accuracy = max(self.accuracy, metrics["eval_accuracy"])


def collate(items: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    images, labels = zip(*items, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


def accuracy(seen: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float(np.mean(seen.predictions.argmax(axis=1) == seen.label_ids))}


def main() -> None:
    logging.set_verbosity_error()
    arguments = task.read_arguments()
    set_seed(arguments.seed)
    train_set, val_set = task.folders(arguments.root, arguments.image_size)
    model = Classifier(arguments.model, len(train_set.classes))
    groups = task.param_groups(model.network, arguments.stage)
    best = Best(len(train_set))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            TrainingArguments(
                folder,
                num_train_epochs=arguments.epochs,
                per_device_train_batch_size=arguments.batch_size,
                per_device_eval_batch_size=arguments.batch_size,
                dataloader_num_workers=arguments.workers,
                dataloader_persistent_workers=arguments.workers > 0,
                max_grad_norm=1.0,
                eval_strategy="epoch",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                use_cpu=arguments.device == "cpu",
                bf16=arguments.device == "cuda",
                seed=arguments.seed,
            ),
            data_collator=collate,
            train_dataset=train_set,
            eval_dataset=val_set,
            compute_metrics=accuracy,
            optimizers=(torch.optim.AdamW(groups, weight_decay=task.WEIGHT_DECAY), None),
            callbacks=[best],
        )
        trainer.train()
    task.report(best.accuracy, best.stopwatch)


if __name__ == "__main__":
    main()
