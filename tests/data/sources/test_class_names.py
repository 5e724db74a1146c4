from __future__ import annotations

import unicodedata

import pytest

from ftexp.data.samples import Sample, SampleTable
from ftexp.data.sources.class_names import unify_names
from ftexp.errors import DataError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def labels(*names: str) -> list[str]:
    samples = SampleTable.of(Sample(str(i), name) for i, name in enumerate(names))
    return [sample.label for sample in unify_names(samples)]


def test_both_unicode_forms_are_one_class_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert unicodedata.normalize("NFC", DECOMPOSED) == COMPOSED != DECOMPOSED
    assert labels(COMPOSED, DECOMPOSED, "tea") == [COMPOSED, COMPOSED, "tea"]
    assert f"Class {COMPOSED!r} is spelt in 2 ways that look the same; they count as one class." in caplog.text


def test_spaces_around_a_name_are_none_of_it(caplog: pytest.LogCaptureFixture) -> None:
    assert labels("cat ", "cat", "\u00a0dog") == ["cat", "cat", "dog"]
    assert "Class 'cat' is spelt in 2 ways" in caplog.text


@pytest.mark.parametrize("other", ["hot\u00a0dog", "hot  dog", "hot dog\u200b", "\ufeffhot dog", "\u202ahot dog\u202c"])
def test_names_that_look_the_same_are_one_class(caplog: pytest.LogCaptureFixture, other: str) -> None:
    assert labels("hot dog", other, "cat") == ["hot dog", "hot dog", "cat"]
    assert "Class 'hot dog' is spelt in 2 ways that look the same" in caplog.text


def test_joiners_are_part_of_a_name() -> None:
    family, three = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\U0001f469\U0001f467"
    assert labels(family, three) == [family, three]


@pytest.mark.parametrize(("one", "other"), [("1", "1.0"), ("0", "0."), ("100000", "1E+05"), ("2.5", "2.50")])
def test_names_that_are_the_same_number_are_refused(one: str, other: str) -> None:
    with pytest.raises(DataError, match=r"images\), .* images\) are the same number\. If they are one class, give"):
        labels(one, one, other, "7")


def test_leading_zeros_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    assert labels("7", "007", "1", "1a", "1.5", "1-5") == ["7", "007", "1", "1a", "1.5", "1-5"]
    expected = "are the same number except for leading zeros; they count as several."
    assert [*caplog.messages] == [f"The classes 007, 7 {expected}"]


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
    assert [sample.group for sample in unify_names(SampleTable.of(samples))] == [COMPOSED, COMPOSED, None]
    unify_names(SampleTable.of([Sample("1", "a", group="P1"), Sample("2", "a", group="p1")]))
    assert "The groups P1, p1 differ only in upper and lower case; they count as several groups." in caplog.text
