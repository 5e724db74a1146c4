"""Fine-tuning from Python: ``ftexp.compose`` and ``ftexp.fine_tune``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from hydra import compose as compose_with_hydra
from hydra import initialize_config_dir

from ftexp.cli.arguments import readable
from ftexp.cli.messages import explain
from ftexp.cli.redaction import RedactingFormatter
from ftexp.cli.resume_arguments import key_with_password, own_overrides, saved_overrides
from ftexp.cli.run_log import RunLog
from ftexp.config import Config, parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.errors import ConfigError, UserError
from ftexp.evaluation.history import Observer
from ftexp.files.run_files import IDENTITY
from ftexp.run_result import RunResult

LOG_FILE = "ftexp.log"
OUTPUTS = Path("outputs")


def compose(*overrides: str) -> Config:
    """Compose and check a configuration as ``python -m ftexp`` does.

    Args:
        overrides: as on the command line: ``compose("data=imagefolder", "data.root=pictures", "stage.epochs=20")``.

    Raises:
        ConfigError: for a key or an option that does not exist, a value that is not allowed, or a flag.
    """
    _check_overrides(overrides)
    register_schema()
    try:
        with initialize_config_dir(str(conf_dir())):
            return parse(compose_with_hydra("config", overrides=readable(list(overrides))))
    except Exception as error:
        message = None if isinstance(error, UserError) else explain(error)
        if message is None:
            raise
        raise ConfigError(message) from error


def fine_tune(
    settings: Config | Iterable[str] = (),
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    score_test: bool = True,
    observers: Sequence[Observer] = (),
) -> RunResult:
    """Fine-tune in this process, and leave in a folder what ``python -m ftexp`` leaves there.

    The log is shown as far as the program has not set up one of its own, and no handler of it stays. Errors are raised,
    Ctrl-C as ``KeyboardInterrupt``; what was saved until then can be resumed.

    Args:
        settings: what ``compose`` gave, or overrides as it takes them; none: the handwritten digits, or with ``resume``
            the overrides that the run was started with, if it was given overrides without a password.
        folder: of the run; None: ``outputs/DATE/TIME``.
        resume: whether to go on with the run in ``folder`` that was interrupted.
        score_test: whether to open the test split at the end, which is counted.
        observers: called with the record of every epoch, and asked before each further one; what they raise ends the
            run.

    Returns:
        What the run came to: ``result.classifier`` predicts, ``result.history`` is a table of the epochs.

    Raises:
        UserError: for anything that the caller has to correct; most mistakes are found before any data is read.
        DivergedError: when an epoch's loss is not finite and no retry is left.
    """
    place = _folder(folder, resume)
    overrides: list[str] | None = None
    if isinstance(settings, Config):
        config = settings
    else:
        given = _as_overrides(settings)
        overrides = own_overrides(given or (_overrides_to_resume(place) if resume else []))
        config = compose(*(given or overrides))
    config = replace(config, resume=replace(config.resume, run=str(place) if resume else None))
    from ftexp.run import run  # after the configuration is known to be good: torch takes seconds

    place.mkdir(parents=True, exist_ok=True)
    with _log_shown(place / LOG_FILE):
        return run(config, place, score_test=score_test, observers=observers, overrides=overrides)


def _overrides_to_resume(folder: Path) -> list[str]:
    saved = saved_overrides(folder)
    if saved is None and (folder / IDENTITY).exists():
        raise ConfigError(
            f"The settings of the run in {folder} are not saved as text: it was started with a Config, or by ftexp "
            "0.1.0. Give them again: fine_tune(settings, folder=..., resume=True)."
        )
    if key := key_with_password(saved or []):
        raise ConfigError(
            f"The run in {folder} was given {key} with a password, which is not saved in its folder. Give all settings "
            "again: fine_tune([...], folder=..., resume=True)."
        )
    return saved or []


def _as_overrides(settings: Iterable[str]) -> list[str]:
    return [settings] if isinstance(settings, str) else list(settings)


def _check_overrides(overrides: Sequence[str]) -> None:
    for override in overrides:
        if override.startswith("-"):
            raise ConfigError(f"{override} is a flag of the command line. Give settings alone, as key=value.")
        if override.partition("=")[0].lstrip("+~").startswith(("resume", "hydra.", "hydra/")):
            raise ConfigError(
                f"{override} is for the command line. Here the folder is fine_tune(folder=...), a run is resumed with "
                "fine_tune(folder=..., resume=True), and Hydra starts nothing."
            )


def _folder(given: str | Path | None, resume: bool) -> Path:
    if given is not None:
        return Path(given).expanduser()
    if resume:
        raise ConfigError("resume=True needs the folder of the run: fine_tune(folder=..., resume=True).")
    now = datetime.now()
    return OUTPUTS / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S-%f}"


@contextmanager
def _log_shown(file: Path) -> Iterator[None]:
    """Write the log of ftexp to a file, and show it where no handler of the program's would."""
    logger = logging.getLogger("ftexp")
    level, handlers = logger.level, list[logging.Handler]()
    if not logger.hasHandlers():
        shown = logging.StreamHandler(sys.stdout)
        shown.setFormatter(RedactingFormatter("%(message)s"))
        handlers.append(shown)
    kept = RunLog(file, encoding="utf-8", errors="backslashreplace")
    kept.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handlers.append(kept)
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
