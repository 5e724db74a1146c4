"""The images that a network got most wrong, and those it was least sure of, as small pictures with a heat map."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from ftexp.data.augment.transforms import Normalizer, eval_transform
from ftexp.data.loading.images import open_image
from ftexp.data.samples import Sample
from ftexp.errors import UserError
from ftexp.evaluation.scores import Scores
from ftexp.models.blocks import Network
from ftexp.report.page.heat_map import heat_maps
from ftexp.report.page.pictures import data_uri

# Of each kind. A heat map takes a pass forward and one back.
MOST_WRONG, LEAST_SURE = 8, 4
# Classes that are named under a picture.
TOP = 3
# Of a picture's side, in pixels.
SIDE = 160
# Of the heat map over its picture.
OPACITY = 0.55

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Example:
    """One image of validation, for the page.

    Attributes:
        label: the true class.
        top: the likeliest classes with their probabilities, the likeliest first.
        label_probability: of the true class.
        picture, heat: data URIs of the image as the network sees it, and with the heat map over it; ``heat`` is None
            where there is none.
    """

    path: str
    label: str
    top: tuple[tuple[str, float], ...]
    label_probability: float
    picture: str
    heat: str | None


@dataclass(frozen=True, slots=True)
class Examples:
    """The images that the page shows.

    Attributes:
        num_wrong: of all images of validation.
        no_heat: why there are no heat maps; None where there are.
    """

    most_wrong: tuple[Example, ...]
    least_sure: tuple[Example, ...]
    num_wrong: int
    no_heat: str | None


def choose(scores: Scores) -> tuple[list[int], list[int]]:
    """The rows of the images with the largest loss among those that are wrong, and with the least confidence.

    Returns:
        Most wrong and least sure; no image is in both, and the latter are none where confidences are not known.
    """
    wrong = np.flatnonzero(scores.labels != scores.predictions)
    most_wrong = wrong[np.argsort(-scores.losses[wrong], kind="stable")][:MOST_WRONG].tolist()
    if scores.confidences is None:
        return most_wrong, []
    order = np.argsort(scores.confidences, kind="stable")[: MOST_WRONG + LEAST_SURE].tolist()
    return most_wrong, [row for row in order if row not in set(most_wrong)][:LEAST_SURE]


def draw_examples(
    network: Network, samples: Sequence[Sample], classes: Sequence[str], scores: Scores, temperature: float = 1.0
) -> Examples:
    """Choose the images, and draw them.

    Args:
        network: with the weights that gave the scores, in eval mode.
        samples: those of validation in the order of the scores.
        classes: in the order of the logits.
        temperature: by which the logits are divided, as in the scores.

    Raises:
        DataError: when one of the images cannot be read any more.
    """
    most_wrong, least_sure = choose(scores)
    chosen = [samples[row] for row in (*most_wrong, *least_sure)]
    num_wrong = scores.num_samples - scores.num_correct
    if not chosen:
        return Examples((), (), num_wrong, None)
    transform, normalizer = eval_transform(network.preprocessing), Normalizer(network.preprocessing)
    pictures = torch.stack([transform(open_image(sample)) for sample in chosen])
    inputs = normalizer(pictures.to(next(network.module.parameters()).device))
    with torch.no_grad():
        probabilities = (network.module(inputs).float() / temperature).softmax(dim=1)
    heat, no_heat = _heat(network, inputs, probabilities.argmax(dim=1))
    drawn = [
        _example(sample, picture, one.numpy(), classes, None if heat is None else heat[row])
        for row, (sample, picture, one) in enumerate(zip(chosen, pictures, probabilities.cpu(), strict=True))
    ]
    return Examples(tuple(drawn[: len(most_wrong)]), tuple(drawn[len(most_wrong) :]), num_wrong, no_heat)


def _heat(network: Network, inputs: Tensor, targets: Tensor) -> tuple[npt.NDArray[np.float32] | None, str | None]:
    """Heat maps for the predicted classes, or why there are none."""
    try:
        return heat_maps(network, inputs, targets), None
    except UserError as error:
        return None, str(error)
    except RuntimeError as error:  # of a layer without a gradient, or for want of memory
        return None, f"Torch cannot compute them for {network.name}: {str(error).splitlines()[0]}"


def _example(
    sample: Sample,
    picture: Tensor,
    probabilities: npt.NDArray[np.float32],
    classes: Sequence[str],
    heat: npt.NDArray[np.float32] | None,
) -> Example:
    image = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    return Example(
        sample.path,
        sample.label,
        tuple((classes[row], float(probabilities[row])) for row in order),
        float(probabilities[classes.index(sample.label)]),
        data_uri(image),
        None if heat is None else data_uri(_overlaid(image, heat)),
    )


def _overlaid(image: Image.Image, heat: npt.NDArray[np.float32]) -> Image.Image:
    """The image in grey, and over it in colour, from nothing to full, what spoke for the class."""
    strength = Image.fromarray(np.round(255 * heat).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    colours = Image.fromarray(np.round(255 * colormaps["inferno"](np.asarray(strength))[..., :3]).astype(np.uint8))
    return Image.blend(image.convert("L").convert("RGB"), colours, OPACITY)
