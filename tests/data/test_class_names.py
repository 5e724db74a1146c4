from __future__ import annotations

import unicodedata

import pytest

from ftexp.data.class_names import unify_names
from ftexp.data.samples import Sample
from ftexp.errors import DataError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def labels(*names: str) -> list[str]:
    return [sample.label for sample in unify_names([Sample(str(i), name) for i, name in enumerate(names)])]


def test_both_unicode_forms_are_one_class_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert unicodedata.normalize("NFC", DECOMPOSED) == COMPOSED != DECOMPOSED
    assert labels(COMPOSED, DECOMPOSED, "tea") == [COMPOSED, COMPOSED, "tea"]
    assert f"Class {COMPOSED!r} is spelt in 2 ways that look the same; they are one class." in caplog.text


def test_spaces_around_a_name_are_none_of_it(caplog: pytest.LogCaptureFixture) -> None:
    assert labels("cat ", "cat", "\u00a0dog") == ["cat", "cat", "dog"]
    assert "Class 'cat' is spelt in 2 ways" in caplog.text


def test_names_of_one_spelling_are_not_talked_about(caplog: pytest.LogCaptureFixture) -> None:
    assert labels("a", "b", DECOMPOSED) == ["a", "b", COMPOSED]
    assert not caplog.records


@pytest.mark.parametrize(("one", "other"), [("Cat", "cat"), ("DOG", "dog"), ("\u00c9t\u00e9", "e\u0301te\u0301")])
def test_names_that_differ_only_in_case_are_refused(one: str, other: str) -> None:
    with pytest.raises(DataError, match=r"\(1 images\), .*\(1 images\) differ only in upper and lower case"):
        labels(one, other, "else")


def test_single_letters_may_differ_in_case() -> None:
    assert labels("a", "A", "b") == ["a", "A", "b"]


def test_groups_have_one_spelling_too(caplog: pytest.LogCaptureFixture) -> None:
    samples = [Sample("1", "a", group=COMPOSED), Sample("2", "a", group=DECOMPOSED), Sample("3", "a")]
    assert [sample.group for sample in unify_names(samples)] == [COMPOSED, COMPOSED, None]
    unify_names([Sample("1", "a", group="P1"), Sample("2", "a", group="p1")])
    assert "The groups P1, p1 differ only in upper and lower case, and count as several." in caplog.text
