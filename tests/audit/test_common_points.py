"""What many pictures have (a form, a frame, a logo) does not make two of them copies or scenes."""

from __future__ import annotations

from functools import cache

import pytest
from edits import OVERLAYS, picture, turned_and_cut
from PIL import Image

from ftexp.audit import common_points
from ftexp.audit.common_points import References
from ftexp.audit.geometry import align
from ftexp.audit.local_features import COARSE, LocalFeatures, find_local_features


def on_a_form(seed: int, moved: int = 0) -> Image.Image:
    """A form that takes most of the picture, with a photograph on it."""
    form = picture(99).crop((moved, 0, 300 + moved, 280))
    form.paste(picture(seed).resize((110, 90)), (90, 90))
    return form


@cache
def coarse(seed: int, kind: str) -> LocalFeatures:
    return find_local_features({"form": on_a_form, **OVERLAYS}[kind](seed if kind == "form" else picture(seed)), COARSE)


@pytest.fixture(autouse=True)
def six_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_points, "LEAST_REFERENCES", 6)


@pytest.mark.parametrize("kind", ["form", "logo", "frame"])
def test_what_several_pictures_have_is_no_evidence(kind: str) -> None:
    references = References(range(10, 22), [coarse(seed, kind) for seed in range(10, 22)])
    assert references.leave_nothing_of((7, 8), coarse(7, kind), coarse(8, kind))
    plain = References(range(6), [find_local_features(picture(seed), COARSE) for seed in range(6)])
    assert not plain.leave_nothing_of((7, 8), coarse(7, kind), coarse(8, kind))


def test_two_others_are_not_several_and_the_pair_itself_does_not_count() -> None:
    features = [
        coarse(0, "form"),
        coarse(1, "form"),
        *(find_local_features(picture(seed), COARSE) for seed in range(4)),
    ]
    references = References(range(6), features)
    assert not references.leave_nothing_of((0, 1), features[0], features[1])
    assert not references.leave_nothing_of((7, 8), coarse(7, "form"), coarse(8, "form"))
    assert not References([0], features[:1]).leave_nothing_of((7, 8), coarse(7, "form"), coarse(8, "form"))


def test_a_copy_on_a_form_keeps_the_points_of_its_own() -> None:
    references = References(range(10, 22), [coarse(seed, "form") for seed in range(10, 22)])
    turned = turned_and_cut(on_a_form(7), 5)
    assert not references.leave_nothing_of((7, 8), coarse(7, "form"), find_local_features(turned, COARSE))


def test_without_other_pictures_a_form_is_taken_for_a_copy_or_a_scene() -> None:
    for moved, verdict in ((0, "edited"), (20, "edited")):
        assert align(*map(find_local_features, (on_a_form(7), on_a_form(8, moved)))).verdict == verdict
