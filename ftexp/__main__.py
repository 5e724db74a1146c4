"""``python -m ftexp``: nothing but the Hydra entry."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ftexp.config import parse, register_schema
from ftexp.errors import UserError
from ftexp.messages import explain


def conf_dir() -> Path:
    """The config groups: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def job(composed: DictConfig) -> float:
    """One run, alone or as a job of a sweep. Returns the best validation metric: a sweep's objective."""
    hydra_config = HydraConfig.get()
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    try:
        config = parse(composed)
        from ftexp.run import run  # after the configuration is known to be good: torch takes seconds

        return run(config, Path(hydra_config.runtime.output_dir), score_test=not in_sweep)
    except UserError as error:
        if in_sweep or _wants_traceback():
            raise
        _stop(str(error), code=1)  # by SystemExit, which Hydra passes on without a report of its own


def main() -> None:
    """Compose the configuration and run it; a user's mistake ends as one message and exit code 1."""
    os.environ.setdefault("FTEXP_TRACEBACK", os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors of the composition reach us, and not Hydra's own report
    register_schema()
    try:
        hydra.main(config_path=str(conf_dir()), config_name="config")(job)()
    except KeyboardInterrupt:
        _stop("interrupted.", code=130)
    except Exception as error:
        message = None if _wants_traceback() else explain(error)
        if message is None:
            traceback.print_exc()
            sys.exit(1)
        _stop(message, code=1)


def _wants_traceback() -> bool:
    return os.environ.get("FTEXP_TRACEBACK") == "1"


def _stop(message: str, code: int) -> NoReturn:
    print(f"ftexp: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
