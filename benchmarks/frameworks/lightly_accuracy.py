"""lightly-train's ``train_image_classification`` with its defaults, and ``predict_batch`` of the best weights.

AdamW at 3e-4 for all weights, crops, flips and colour jitter, in batches of 16. Its warm-up of 500 in 100,000 steps is
scaled with the steps: by default it takes 500 even of a shorter training, which would end before the rate is reached.
lightly-train 0.18 needs timm below 1.0 for this network: with ``forward_intermediates``, which later versions have, it
takes the features before the last convolution, but gives its head the size of those behind it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["LIGHTLY_TRAIN_EVENTS_DISABLED"] = "1"

import budget
import lightly_train
import task
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

BATCH_SIZE, WARMUP_SHARE = 16, 500 / 100_000


def train(arguments: object, folder: Path, name: str, steps: int, classes: dict[int, str]) -> Path:
    """Train and return the file with the best weights."""
    weights = folder / "pretrained.pt"
    if not weights.exists():
        torch.save(task.build_network(task.BUNDLED, 0).state_dict(), weights)
    size = arguments.image_size
    warmup = max(1, round(WARMUP_SHARE * steps))
    lightly_train.train_image_classification(
        out=folder / name,
        model=f"timm/{task.BUNDLED}",
        data={"train": arguments.root / "train", "val": arguments.root / "val", "classes": classes},
        steps=steps,
        seed=arguments.seed,
        accelerator=arguments.device,
        devices=1,
        model_args={"backbone_weights": weights, "lr_warmup_steps": warmup},
        transform_args={"image_size": (size, size), "normalize": {"mean": task.HALF, "std": task.HALF}},
    )
    return folder / name / "exported_models" / "exported_best.pt"


def main() -> None:
    arguments = budget.read_arguments()
    images = {name: sorted((arguments.root / name).glob("*/*")) for name in ("train", "val", "test")}
    classes = dict(enumerate(sorted(one.name for one in (arguments.root / "train").iterdir())))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["LIGHTLY_TRAIN_CACHE_DIR"] = str(folder / "cache")
        trial = budget.Trial()
        hook = register_optimizer_step_post_hook(trial.update)
        train(arguments, folder, "trial", budget.trial_updates(BATCH_SIZE), classes)
        hook.remove()
        pace = trial.pace(BATCH_SIZE)
        counts = (len(images["train"]), 0, len(images["test"]))
        epochs = pace.epochs(budget.seconds_left(arguments, 0), *counts)
        best = train(arguments, folder, "run", round(epochs * len(images["train"]) / BATCH_SIZE), classes)
        model = lightly_train.load_model(best, device=arguments.device)
        chances = []
        for start in range(0, len(images["test"]), BATCH_SIZE):
            for found in model.predict_batch(images["test"][start : start + BATCH_SIZE], topk=len(classes)):
                chances.append(found["scores"][found["labels"].argsort()].tolist())
    budget.write(arguments, [str(image) for image in images["test"]], list(classes.values()), chances)


if __name__ == "__main__":
    main()
