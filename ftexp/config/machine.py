"""The schema of ``runtime`` and ``tracking``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING

from ftexp.config.check import check
from ftexp.config.uri import check_uri, uri_as_given
from ftexp.errors import ConfigError

# Values of compile_mode that record CUDA graphs: what code makes lies in memory that its next call writes over.
CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
WITHOUT_GRAPHS = "runtime.compile_mode=default or max-autotune-no-cudagraphs"


@dataclass(slots=True)
class RuntimeConfig:
    """The machine. ``auto`` takes what is fast there."""

    # auto: cuda where there is one, else mps, else cpu; or a name such as cuda:1.
    device: str = MISSING
    precision: Literal["auto", "fp32", "bf16", "fp16"] = MISSING
    # auto: on CUDA, in phases that are long enough for it and train more than a head on kept activations.
    compile: bool | str = MISSING
    # torch.compile's; reduce-overhead and max-autotune use CUDA graphs, which pay where steps are short.
    compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = MISSING
    channels_last: bool | str = MISSING
    # Activations of the frozen leading blocks, computed once wherever the images stay the same: memory: for a phase;
    # disk: kept in cache_folder for later phases, trials and runs; auto: disk.
    cache: Literal["auto", "off", "memory", "disk"] = MISSING
    # Most that all of them may take; on disk, the least recently used make room.
    cache_gib: float = MISSING
    cache_folder: str = MISSING
    # Decoded and resized images, kept in cache_folder beside the activations: auto: of all files, where they fit into
    # cache_gib; off: every file is decoded in every epoch.
    pixels: Literal["auto", "off"] = MISSING
    # Processes that decode and augment; auto: by the cores and the source, none where decoded images are kept.
    workers: int | str = MISSING
    seed: int = MISSING
    # True: only deterministic algorithms, at some cost on CUDA.
    deterministic: bool = MISSING

    def __post_init__(self) -> None:
        kind = self.device.split(":")[0]
        check(kind in ("auto", "cpu", "cuda", "mps"), "runtime.device", self.device, "auto, cpu, cuda, cuda:N or mps")
        for key in ("compile", "channels_last"):
            value = getattr(self, key)
            check(isinstance(value, bool) or value == "auto", f"runtime.{key}", value, "auto, true or false")
        workers = self.workers
        number = isinstance(workers, int) and not isinstance(workers, bool) and workers >= 0
        check(number or workers == "auto", "runtime.workers", workers, "auto, or a number of processes from 0")
        check(self.cache_gib > 0, "runtime.cache_gib", self.cache_gib, "above 0 (runtime.cache=off for none)")
        check(0 <= self.seed < 2**32, "runtime.seed", self.seed, "from 0 to 2**32 - 1")

    @property
    def may_record_graphs(self) -> bool:
        """Whether compiled code may be in CUDA graphs; for certain, it is known on the machine that runs it."""
        on_cuda = self.device.split(":")[0] in ("auto", "cuda")
        return self.compile_mode in CUDA_GRAPHS and (self.compile is True or (self.compile == "auto" and on_cuda))


@dataclass(slots=True)
class TrackingConfig:
    """Where runs are recorded for comparison, beside their own folders."""

    backend: Literal["mlflow", "none"] = MISSING
    # An MLflow tracking URI. Relative sqlite paths are taken from the working folder.
    uri: str | None = None
    experiment: str = "ftexp"
    # Whether the best network becomes an MLflow model, too: with its transforms and class names, for pyfunc.
    log_model: bool = False
    # The name that the model gets in MLflow's registry, with the alias "best"; null: none. It implies log_model.
    register_as: str | None = None

    # Load of processor, memory, disk, network and GPU, every ten seconds.
    system_metrics: bool = False

    @property
    def wants_model(self) -> bool:
        """Whether there is to be an MLflow model."""
        return self.log_model or self.register_as is not None

    def __post_init__(self) -> None:
        if self.backend == "mlflow":
            if not self.uri:
                raise ConfigError(
                    f"{uri_as_given(self.uri)} is not allowed: it must be an MLflow tracking URI, for example "
                    "sqlite:///mlflow.db. tracking=none records nothing."
                )
            named = self.register_as is None or (bool(self.register_as) and not set("/:.") & set(self.register_as))
            check(named, "tracking.register_as", self.register_as, "a name without / : and . or null")
            check(bool(self.experiment), "tracking.experiment", self.experiment, "a name")
            check_uri(str(self.uri))
