"""ftexp with its defaults and a time limit, then its predictions of the test images."""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

from ftexp import fine_tune

# Seconds that the end of the process takes, and predicting one test image with EfficientNet-Lite0 on two cores.
FOR_THE_END, PREDICTING_AN_IMAGE = 3.0, 0.035


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser()
    for name in ("root", "predictions"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    for name in ("seed", "image-size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--stage", required=True)
    arguments = parser.parse_args()
    folder = arguments.predictions.parent / "run"
    files = sorted(file for file in (arguments.root / "test").rglob("*") if file.is_file())
    end = FOR_THE_END + PREDICTING_AN_IMAGE * len(files)
    seconds = arguments.seconds - (time.monotonic() - began) - end
    settings = (
        "data=imagefolder",
        f"data.root='{arguments.root}'",
        f"data.image_size={arguments.image_size}",
        f"stage={arguments.stage}",
        f"train.max_minutes={seconds / 60}",
        f"runtime.seed={arguments.seed}",
        f"runtime.device={arguments.device}",
        f"runtime.cache_folder='{folder}.cache'",
        f"audit.cache='{folder}.audit'",
        "tracking=none",
        "audit.on_leak=warn",
    )
    classifier = fine_tune(settings, folder=folder, score_test=False).classifier
    with arguments.predictions.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *classifier.classes])
        for path, prediction in zip(files, classifier.predict(files), strict=True):
            assert prediction.error is None, prediction.error
            writer.writerow([path.relative_to(arguments.root / "test"), *prediction.probabilities.tolist()])


if __name__ == "__main__":
    main()
