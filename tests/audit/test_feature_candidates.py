"""Pairs that can be copies are found by the features of the whole image and of its centre."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from ftexp.audit.feature_candidates import CENTRE, IMAGES_FOR_POWER, WHOLE, FeatureCandidates
from ftexp.audit.fingerprint_table import Fingerprint, Fingerprints
from ftexp.audit.pairs import differ
from ftexp.data.digests import bytes_digest

NUM_FEATURES = 32


def fingerprints(features: np.ndarray) -> Fingerprints:
    """Of images with these features of the whole, the centre and the image in gray, [N, 3, D]."""
    facts: dict[str, str | float] = {"width": 64, "height": 64}
    thumbnail = np.zeros((64, 64), np.uint8)
    digests = [bytes_digest(str(number).encode()) for number in range(len(features))]
    return Fingerprints(
        Fingerprint(digest, digest, thumbnail, 64, facts, views[0], views[1:])
        for digest, views in zip(digests, features.astype(np.float16), strict=True)
    )


@pytest.mark.parametrize("number", [40, IMAGES_FOR_POWER * NUM_FEATURES], ids=["few images", "enough for the power"])
def test_the_whole_of_one_image_is_compared_with_the_centre_of_another(number: int) -> None:
    features = np.random.default_rng(0).normal(size=(number, 3, NUM_FEATURES))
    features[1, WHOLE] = features[0, CENTRE]  # image 1 is cut out of image 0
    numbers = np.arange(number)
    found = FeatureCandidates(fingerprints(features), numbers).edited(partial(differ, numbers), np.array([1]))
    assert [0, 1] in found.tolist()
