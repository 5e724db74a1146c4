"""The schema of ``resume``."""

from __future__ import annotations

from dataclasses import dataclass

# What may differ from the run that is gone on with, where the user insists: nothing of it enters the result, rounding
# and the draws of dropout aside. Nothing that changes how many steps a phase has belongs here (finetune/epochs.py).
HARMLESS = (
    "runtime.device",
    "runtime.compile",
    "runtime.compile_mode",
    "runtime.channels_last",
    "runtime.cache_folder",  # but not what may be kept: augment.views=auto goes by it
    "runtime.pixels",
    "runtime.workers",
    "tracking",
    "audit",
    "test",
    "train.save_every_minutes",
    "train.nan_retries",
)


# Settings that may differ without resume.force: a resumed run identifies its images by their content.
DATA_PATHS = ("data.root", "data.file")


@dataclass(slots=True)
class ResumeConfig:
    """Going on with an interrupted run."""

    # The folder of the run. On the command line resume=FOLDER is short for it, and resume=auto finds the newest
    # unfinished run of the same command.
    run: str | None = None
    # Go on although settings differ, where they are harmless.
    force: bool = False
