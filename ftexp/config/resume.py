"""The schema of ``resume``."""

from __future__ import annotations

from dataclasses import dataclass

# Settings that can be changed with resume.force=true when a run is resumed: they change nothing of its result except
# rounding and the draws of dropout. No setting that changes the number of steps of a phase (finetune/epochs.py) belongs
# here.
HARMLESS = (
    "runtime.device",
    "runtime.compile",
    "runtime.compile_mode",
    "runtime.channels_last",
    "runtime.cache_folder",  # but not runtime.cache and runtime.cache_gib, which augment.views=auto depends on
    "runtime.frozen_engine",
    "runtime.pixels",
    "runtime.workers",
    "tracking",
    "audit",
    "test",
    "train.save_every_minutes",
    "train.nan_retries",
)


# Settings that may differ without resume.force: a resumed run identifies its images by their content, and what else the
# tracking store gets of it is no part of the run.
FREE = (
    "data.root",
    "data.file",
    "data.shards",
    "data.index",
    "tracking.log_images",
    "tracking.log_model",
    "train.keep_last",
)


@dataclass(slots=True)
class ResumeConfig:
    """How to resume an interrupted run."""

    # The folder of the run. On the command line, resume=FOLDER is short for it, and resume=auto finds the newest
    # unfinished run of the same command.
    run: str | None = None
    # Resume although settings have changed, if those settings do not change the result.
    force: bool = False
