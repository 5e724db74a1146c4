"""Two pictures of one thing fit, whatever was done to one of them; pictures of different things do not."""

from __future__ import annotations

import numpy as np
import pytest
from edits import EDITS, OVERLAYS, picture
from PIL import Image, ImageOps

from ftexp.audit.geometry import Alignment, align, laid_over, may_fit
from ftexp.audit.local_features import COARSE, FINE, find_local_features, match


def aligned(first: Image.Image, second: Image.Image) -> Alignment:
    return align(find_local_features(first), find_local_features(second))


def test_the_features_of_a_mirror_image_need_no_search() -> None:
    computed, searched = find_local_features(picture(0)).mirrored(), find_local_features(ImageOps.mirror(picture(0)))
    np.testing.assert_allclose(computed.gray.astype(int), searched.gray, atol=10)  # resizing rounds otherwise
    rows, columns = match(computed, searched)
    one, other = computed.points[rows], searched.points[columns]
    assert len(one) > 0.7 * len(searched.points) > 100
    assert np.quantile(np.abs(one - other).max(axis=1), 0.95) < 1
    assert len(match(find_local_features(picture(0)), searched)[0]) < 0.1 * len(searched.points)


# The letters of the watermark are as large as the shapes of the made-up pictures; on photographs it is found.
@pytest.mark.parametrize("kind", sorted(EDITS.keys() - {"watermark"}))
def test_an_edited_copy_is_one_in_either_order(kind: str) -> None:
    original, copy = find_local_features(picture(1)), find_local_features(EDITS[kind](picture(1)))
    for found in (align(original, copy), align(copy, original)):
        assert found.verdict == "edited", (kind, found)
        assert found.inliers >= 12


@pytest.mark.parametrize("kind", sorted(EDITS.keys() - {"watermark"}))
def test_an_edited_copy_may_fit_in_coarse_detail(kind: str) -> None:
    original, copy = (find_local_features(one, COARSE) for one in (picture(1), EDITS[kind](picture(1))))
    assert len(original.points) == COARSE.max_points
    assert may_fit(original, copy)
    assert may_fit(copy, original)
    assert not may_fit(find_local_features(picture(2), COARSE), copy)


def test_pictures_of_different_things_do_not_fit() -> None:
    found = [aligned(picture(seed), picture(seed + 1)) for seed in range(0, 16, 2)]
    assert {one.verdict for one in found} == {None}
    assert max(one.inliers for one in found) < 8


@pytest.mark.parametrize("kind", OVERLAYS)
def test_what_lies_on_different_pictures_does_not_make_them_copies_or_scenes(kind: str) -> None:
    for seed in range(2, 8, 2):
        found = aligned(OVERLAYS[kind](picture(seed)), OVERLAYS[kind](picture(seed + 1)))
        assert found.verdict is None, found
        assert found.agreement < 0.5
    if kind != "date":
        assert found.inliers >= 14  # the points of the overlay do match


@pytest.mark.parametrize("kind", ["turned by 7°", "caption, mirrored", "perspective", "corner"])
def test_a_copy_is_laid_over_the_original(kind: str) -> None:
    original, copy = picture(1), EDITS[kind](picture(1)).resize((500, 400))
    first, second = find_local_features(original), find_local_features(copy)
    laid = laid_over(first, second, (165, 140), np.asarray(copy))
    assert laid is not None
    small = np.asarray(original.resize((165, 140)))
    shown = laid[:, :, 3] == 255
    assert shown.mean() > 0.5
    assert np.abs(laid[:, :, :3].astype(int) - small)[shown].mean() < 8
    assert laid_over(first, find_local_features(picture(2)), (165, 140), np.asarray(copy)) is None


def test_another_photograph_of_a_scene_is_a_scene() -> None:
    """One background, moved by 5 %, and different things before it."""
    background = picture(10)
    first, second = background.crop((0, 0, 300, 260)), background.crop((18, 13, 318, 273))
    first.paste(picture(11).crop((0, 0, 160, 150)), (0, 0))
    second.paste(picture(12).crop((0, 0, 160, 150)), (140, 110))
    found = aligned(first, second)
    assert found.verdict == "scene", found
    assert found.moved == pytest.approx(18 / 300, abs=0.01)


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ((12, 0.49, 0.2, 0, 0.0), "edited"),
        ((12, 0.48, 1.0, 0, 0.0), None),
        ((11, 0.69, 1.0, 9, 0.5), None),
        ((8, 0.7, 0.2, 0, 0.0), "edited"),
        ((7, 1.0, 1.0, 9, 0.5), None),
        ((99, 1.0, 0.19, 9, 0.0), None),
        ((14, 0.0, 1.0, 4, 0.02), "scene"),
        ((13, 0.0, 1.0, 4, 0.02), None),
        ((99, 0.4, 1.0, 3, 0.5), None),
        ((99, 0.4, 1.0, 16, 0.019), None),
    ],
)
def test_verdicts(figures: tuple[int, float, float, int, float], verdict: str | None) -> None:
    assert Alignment(*figures).verdict == verdict


@pytest.mark.parametrize("size", [(20_000, 10), (1, 1), (64, 64), (5, 300)])
def test_pictures_without_points_fit_nothing(size: tuple[int, int]) -> None:
    flat = find_local_features(Image.new("RGB", size, "red"))
    assert max(flat.gray.shape) == FINE.longer_side
    assert align(flat, find_local_features(picture(0))) == align(flat, flat) == Alignment(0, 0.0, 0.0, 0, 0.0)
