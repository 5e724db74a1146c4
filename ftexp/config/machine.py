"""The schema of ``runtime`` and ``tracking``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING

from ftexp.config.check import check, refuse_empty
from ftexp.config.uri import check_uri, uri_as_given
from ftexp.errors import ConfigError

# Values of compile_mode that record CUDA graphs, whose outputs lie in memory that the next call overwrites.
CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
# What runtime.device may begin with.
DEVICES = ("auto", "cpu", "cuda", "mps")
WITHOUT_GRAPHS = "runtime.compile_mode=default or max-autotune-no-cudagraphs"


@dataclass(slots=True)
class RuntimeConfig:
    """How to use the machine. ``auto`` chooses what is fast there."""

    # auto: cuda if there is a CUDA device, else mps, else cpu. Or a name such as cuda:1.
    device: str = MISSING
    # The numbers that the network computes with. auto: bf16 on a GPU that is faster with it, else fp32.
    precision: Literal["auto", "fp32", "bf16", "fp16"] = MISSING
    # auto: on CUDA, in phases that have enough steps, by their share of trained blocks, to gain more than it takes.
    compile: bool | str = MISSING
    # The mode of torch.compile. reduce-overhead and max-autotune use CUDA graphs, which help when steps are short.
    compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = MISSING
    # Whether to train a convolution and the BatchNorm behind it, if its statistics are kept, as one operator: the
    # backward pass needs up to half of its memory less, and gradients are the same up to rounding. auto: on the CPU.
    fold_batchnorm: bool | str = MISSING
    # The order of the numbers in memory. auto: true on the CPU; on CUDA, for many images or with compile=true.
    channels_last: bool | str = MISSING
    # Where to cache the activations of the frozen leading blocks, which are computed once if the images stay the same.
    # memory: for one phase; disk: in cache_folder, for later phases, trials and runs; auto: disk.
    cache: Literal["auto", "off", "memory", "disk"] = MISSING
    # The largest size of the cache; on disk, the least recently used entries are removed.
    cache_gib: float = MISSING
    # The folder of what is kept for later phases, trials and runs; it may be deleted at any time.
    cache_folder: str = MISSING
    # What runs the frozen blocks once for the cache. auto: on the CPU in fp32, ONNX Runtime if there are enough images
    # and frozen blocks, by their numbers; else torch (eager). Both agree to 1e-4 of the largest output.
    frozen_engine: Literal["auto", "eager", "onnxruntime"] = MISSING
    # Whether to cache decoded and resized images in cache_folder, too. auto: if all of them fit into cache_gib; off:
    # every file is decoded in every epoch.
    pixels: Literal["auto", "off"] = MISSING
    # The number of processes that decode and augment images. auto: by the cores and the source, and none if decoded
    # images are cached.
    workers: int | str = MISSING
    # The seed of everything random but the cut into splits, which has data.seed.
    seed: int = MISSING
    # True: only deterministic algorithms, which can be slower on CUDA.
    deterministic: bool = MISSING

    def __post_init__(self) -> None:
        kind = self.device.split(":")[0]
        check(kind in DEVICES, "runtime.device", self.device, "auto, cpu, cuda, cuda:N or mps")
        for key in ("compile", "channels_last", "fold_batchnorm"):
            value = getattr(self, key)
            check(isinstance(value, bool) or value == "auto", f"runtime.{key}", value, "auto, true or false")
        workers = self.workers
        number = isinstance(workers, int) and not isinstance(workers, bool) and workers >= 0
        check(number or workers == "auto", "runtime.workers", workers, "auto, or a number of processes, 0 or above")
        refuse_empty("runtime.cache_folder", self.cache_folder)
        check(self.cache_gib > 0, "runtime.cache_gib", self.cache_gib, "above 0 (runtime.cache=off for none)")
        check(0 <= self.seed < 2**32, "runtime.seed", self.seed, "from 0 to 2**32 - 1")

    @property
    def may_record_graphs(self) -> bool:
        """Whether compiled code can use CUDA graphs. Only the machine that runs it knows whether it does."""
        on_cuda = self.device.split(":")[0] in ("auto", "cuda")
        return self.compile_mode in CUDA_GRAPHS and (self.compile is True or (self.compile == "auto" and on_cuda))


@dataclass(slots=True)
class TrackingConfig:
    """Where runs are recorded for comparison, in addition to their own folders."""

    # The name of the option.
    backend: Literal["mlflow", "none"] = MISSING
    # An MLflow tracking URI. Relative sqlite paths start from the working folder.
    uri: str | None = None
    # The experiment of MLflow that runs belong to.
    experiment: str = "ftexp"
    # Whether to log the best network as an MLflow model (pyfunc) with its transforms and class names.
    log_model: bool = True
    # The name of the model in the registry of MLflow, where it gets the alias "best"; null: do not register it. A name
    # implies log_model.
    register_as: str | None = None
    # Whether to log pictures of the data, which may be private: leaks.png, and the images in report.html.
    log_images: bool = False
    # Whether to log the load of processor, memory, disk, network and GPU every ten seconds.
    system_metrics: bool = False

    @property
    def wants_model(self) -> bool:
        """Whether to log an MLflow model."""
        return self.log_model or self.register_as is not None

    def __post_init__(self) -> None:
        if self.backend == "mlflow":
            if not self.uri:
                raise ConfigError(
                    f"{uri_as_given(self.uri)} is not allowed: it must be an MLflow tracking URI, for example "
                    "sqlite:///mlflow.db. To record nothing, set tracking=none."
                )
            named = self.register_as is None or (bool(self.register_as) and not set("/:.") & set(self.register_as))
            check(named, "tracking.register_as", self.register_as, "a name without / : and . or null")
            check(bool(self.experiment), "tracking.experiment", self.experiment, "a name")
            check_uri(str(self.uri))
