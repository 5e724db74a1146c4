"""The Trainer of Hugging Face transformers as in its example of image classification, ``run_image_classification.py``.

Random resized crops and flips, AdamW at 5e-5 with linear decay for all weights, in batches of 8; the best epoch is
kept.
"""

from __future__ import annotations

import tempfile

import budget
import numpy as np
import task
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from transformers import EvalPrediction, Trainer, TrainingArguments, set_seed
from transformers.utils import logging


class Classifier(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.network = task.build_network(task.BUNDLED, num_classes)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.network(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def collate(items: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    images, labels = zip(*items, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


def accuracy(seen: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float(np.mean(seen.predictions.argmax(axis=1) == seen.label_ids))}


def main() -> None:
    logging.set_verbosity_error()
    arguments = budget.read_arguments()
    size = arguments.image_size
    crops = task.to_tensors(v2.RandomResizedCrop(size), v2.RandomHorizontalFlip())
    train_set = ImageFolder(arguments.root / "train", crops)
    still = task.to_tensors(v2.Resize(size), v2.CenterCrop(size))
    val_set, test_set = (ImageFolder(arguments.root / name, still) for name in ("val", "test"))
    quiet = {"report_to": "none", "disable_tqdm": True, "remove_unused_columns": False}
    where = {"use_cpu": arguments.device == "cpu", "seed": arguments.seed}

    def trainer(settings: TrainingArguments) -> Trainer:
        return Trainer(
            Classifier(len(train_set.classes)),
            settings,
            data_collator=collate,
            train_dataset=train_set,
            eval_dataset=val_set,
            compute_metrics=accuracy,
        )

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(folder, save_strategy="no", max_steps=budget.trial_updates(8), **quiet, **where)
        trial = budget.Trial()
        hook = register_optimizer_step_post_hook(trial.update)
        trainer(settings).train()
        hook.remove()
        pace = trial.pace(settings.per_device_train_batch_size)
        counts = (len(train_set), len(val_set), len(test_set))
        epochs = pace.epochs(budget.seconds_left(arguments, 0), *counts)
        set_seed(arguments.seed)
        whole = trainer(
            TrainingArguments(
                folder,
                num_train_epochs=epochs,
                eval_strategy="epoch",
                save_strategy="epoch",
                save_total_limit=1,
                load_best_model_at_end=True,
                metric_for_best_model="accuracy",
                **quiet,
                **where,
            )
        )
        whole.train()
        logits = torch.from_numpy(whole.predict(test_set).predictions)
    chances = logits.softmax(dim=1).tolist()
    budget.write(arguments, [path for path, _ in test_set.samples], train_set.classes, chances)


if __name__ == "__main__":
    main()
