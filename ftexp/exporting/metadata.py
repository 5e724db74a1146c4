"""What an exported file says of itself: classes, transforms, and the run it comes from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ftexp.data.loading.limits import ImageLimits
from ftexp.errors import CheckpointError, UserError
from ftexp.files.file_format import check_format
from ftexp.files.json_files import plain
from ftexp.inference.calibration import Calibration
from ftexp.preprocessing import Preprocessing

# To be raised when a field comes, goes or gets another meaning. 2: calibration. 3: limits.
FORMAT = 3


@dataclass(frozen=True, slots=True)
class ExportMetadata:
    """Kept in the file as texts, each of them JSON, under these names.

    Attributes:
        classes: their names, in the order of the probabilities.
        preprocessing: what the graph does to the pixels, for people: nobody has to do it again.
        run: the folder of the run that trained the network.
        network: its name.
        precision: ``fp32``, ``fp16``, ``int8`` or ``int8_dynamic``.
        temperature: by which the graph divides logits; 1 where the run was not calibrated.
        versions: of the packages that wrote the file.
        calibration: of the run, with the rules that ``python -m ftexp.calibrate`` chose; None: the run has none, or the
            file was written before files kept it.
        limits: of the run, beyond which no image is decoded; of a file that was written before files kept them, those
            that a run has by default.
    """

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    run: str
    network: str
    precision: str
    temperature: float
    versions: dict[str, str]
    calibration: Calibration | None = None
    limits: ImageLimits = field(default_factory=ImageLimits)

    def as_texts(self) -> dict[str, str]:
        """For the places that formats have for texts."""
        own = {"preprocessing": self.preprocessing.as_dict(), "limits": self.limits.as_dict(), "ftexp_format": FORMAT}
        values = {**asdict(self), **own}
        return {name: json.dumps(plain(value), allow_nan=False) for name, value in values.items()}

    @classmethod
    def from_texts(cls, texts: dict[str, str], file: Path) -> ExportMetadata:
        """What ``as_texts`` gave.

        Raises:
            CheckpointError: when the file was not written by ``python -m ftexp.export``.
        """
        try:
            values: dict[str, Any] = {name: json.loads(text) for name, text in texts.items()}
            check_format(values.pop("ftexp_format"), FORMAT, file)
            preprocessing = Preprocessing.from_dict(values.pop("preprocessing"))
            classes, calibration = tuple(str(name) for name in values.pop("classes")), values.pop("calibration", None)
            known = None if calibration is None else Calibration.from_content(calibration)
            limits = ImageLimits.from_dict(values.pop("limits", {}))
            return cls(classes=classes, preprocessing=preprocessing, calibration=known, limits=limits, **values)
        except UserError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(
                f"{file} was not written by python -m ftexp.export: it does not name its classes and transforms. "
                "Export the run again."
            ) from error
