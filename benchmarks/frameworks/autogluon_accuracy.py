"""AutoGluon's MultiModalPredictor with its defaults and a time limit, as in its quick start, on local weights.

AdamW at 1e-4, less for each layer below, TrivialAugment, 128 images an update, the greedy average of the best three
validations, which come twice an epoch. Its 20 epochs become as many as fit, so that the rate decays within the time.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import budget
import pandas as pd
import task
import torch
from autogluon.multimodal import MultiModalPredictor
from torch.optim.optimizer import register_optimizer_step_post_hook

IMAGE, LABEL = "image", "label"
BATCH_SIZE = 8
# Validations in an epoch, and of the averages of the best three.
VALIDATIONS, AVERAGES = 2, 2


def table(folder: Path) -> pd.DataFrame:
    images = sorted(folder.glob("*/*"))
    return pd.DataFrame({IMAGE: [str(image) for image in images], LABEL: [image.parent.name for image in images]})


def save_network(folder: Path) -> Path:
    """The pretrained network in the form in which AutoGluon reads a local one."""
    network = task.build_network(task.BUNDLED, 0)
    folder.mkdir()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    own = {"input_size": (3, 224, 224), "mean": task.HALF, "std": task.HALF}
    config = {"architecture": task.BUNDLED, "num_features": network.num_features, "pretrained_cfg": own}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def main() -> None:
    arguments = budget.read_arguments()
    train, val, test = (table(arguments.root / name) for name in ("train", "val", "test"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        network = {
            "model.names": ["timm_image"],
            "model.timm_image.checkpoint_name": str(save_network(folder / "network")),
            "model.timm_image.image_size": arguments.image_size,
            **({"env.num_gpus": 0, "env.accelerator": "cpu"} if arguments.device == "cpu" else {}),
        }

        def fit(name: str, options: dict[str, object], limit: float | None) -> MultiModalPredictor:
            predictor = MultiModalPredictor(label=LABEL, path=str(folder / name), verbosity=1)
            limit = None if limit is None else max(1, int(limit))
            hyperparameters = {**network, **options}
            return predictor.fit(
                train, tuning_data=val, time_limit=limit, hyperparameters=hyperparameters, seed=arguments.seed
            )

        trial, short = budget.Trial(), {"env.batch_size": BATCH_SIZE, "optim.top_k": 1}
        hook = register_optimizer_step_post_hook(trial.update)
        fit("trial", {**short, "optim.max_steps": budget.trial_updates(BATCH_SIZE)}, None)
        hook.remove()
        pace = trial.pace(BATCH_SIZE)
        left = budget.seconds_left(arguments, 0)
        scored = len(test) + AVERAGES * len(val)
        epochs = int(pace.epochs(left, len(train), VALIDATIONS * len(val), scored))
        end = budget.FOR_THE_END + budget.SCORED * scored * pace.per_image
        predictor = fit("run", {"optim.max_epochs": epochs}, left - end)
        chances = predictor.predict_proba(test[[IMAGE]], as_pandas=True)
    budget.write(arguments, list(test[IMAGE]), [str(name) for name in chances.columns], chances.to_numpy().tolist())


if __name__ == "__main__":
    main()
