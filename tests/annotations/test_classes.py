"""Which categories are a model's classes, and when two lists of them contradict each other."""

from __future__ import annotations

from typing import Any

import pytest

from src.annotations.categories import (
    IMATERIALIST_2019_LABELS,
    Category,
    ClassList,
    LabelDescriptions,
    check_categories,
    classes_of_data,
)
from src.errors import InputError


def labels(**names: int) -> LabelDescriptions:
    return LabelDescriptions(tuple(Category(number, name, "") for name, number in names.items()))


ROOT_AND_THREE = labels(root=0, coat=1, hat=5, shoe=9)
INSTANCES = {1: 4, 5: 2, 9: 1}


def classes(**given: Any) -> ClassList:
    values = {"num_classes": None, "category_ids": None, **given}
    return classes_of_data(ROOT_AND_THREE, INSTANCES, source="a.json", **values)


@pytest.mark.parametrize(
    ("given", "category_ids"),
    [
        ({}, (0, 1, 5, 9)),
        ({"num_classes": 4}, (0, 1, 5, 9)),
        ({"num_classes": 3}, (1, 5, 9)),  # those with instances
        ({"category_ids": [9, 1, 5]}, (9, 1, 5)),
        ({"category_ids": [9, 1, 5, 0], "num_classes": 4}, (9, 1, 5, 0)),
    ],
)
def test_classes_are_the_listed_categories_unless_given(
    given: dict[str, Any], category_ids: tuple[int, ...]
) -> None:
    names = {0: "root", 1: "coat", 5: "hat", 9: "shoe"}
    assert classes(**given) == ClassList(category_ids, tuple(names[key] for key in category_ids))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"num_classes": 46},
            r"module.num_classes must be 4, .* of a.json \(0 root, 1 coat, 5 hat, 9 shoe\), got 46",
        ),
        ({"num_classes": 2}, r"module.num_classes must be 4, .*, got 2; leave it out"),
        (
            {"category_ids": [1, 5, 9], "num_classes": 4},
            r"module.num_classes must be 3, the number of categories in module.category_ids, got 4",
        ),
        ({"category_ids": [0, 1, 2]}, r"must be .* categories of a.json .*: 2 is none of them"),
        ({"category_ids": [1, 5, 9, 9]}, r"got \[1, 5, 9, 9\]: one is given twice"),
        ({"category_ids": [0, 1, 5]}, r"got \[0, 1, 5\]: 9 \(shoe, 1 instances\) is not there"),
    ],
)
def test_what_contradicts_the_data_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        classes(**given)


def check(own: ClassList, data: LabelDescriptions, instances: dict[int, int]) -> list[str]:
    return check_categories(own, data, instances=instances, model="STORE", data="a.json")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (ClassList((0, 1, 2)), r"STORE must be among those of a.json \(0 root, .*\), got 2"),
        (
            ClassList((1, 5), ("hat", "coat")),
            r"got category 1 named hat, which is coat in a.json",
        ),
    ],
)
def test_predictions_of_other_categories_are_refused(own: ClassList, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(own, ROOT_AND_THREE, INSTANCES)


def test_what_is_odd_but_legal_is_noted() -> None:
    assert check(ClassList((9, 5, 1), ("shoe", "hat", "coat")), ROOT_AND_THREE, INSTANCES) == []
    renamed, missed = check(ClassList((1, 5), ("Coat", "hat")), ROOT_AND_THREE, INSTANCES)
    assert "1 categories are named otherwise in a.json than in STORE: 1 is coat, Coat" in renamed
    assert "no class for 1 categories of a.json (9 shoe), whose instances count" in missed


def test_names_of_2019_stand_for_none() -> None:
    """A CSV has no names, so any that a model has of its ids are right."""
    own = ClassList((0, 1), ("nucleus", "shirt, blouse"))
    assert check(own, IMATERIALIST_2019_LABELS, {0: 1, 1: 1}) == []


def test_names_out_of_a_file_are_printed_as_they_are_safe() -> None:
    own = ClassList((1,), ("\x1b[31m" + "a\nb",))
    assert str(own) == r"1 \x1b[31ma\nb"
    many = ClassList(tuple(range(7)), tuple("abcdefg"))
    assert str(many) == "0 a, 1 b, 2 c, 3 d, 4 e, ... (7 in all)"


@pytest.mark.parametrize("names", [None, "ab", ["a"], ["a", 1], {"a": "b"}])
def test_names_that_are_no_text_for_each_class_are_unknown(names: Any) -> None:
    assert ClassList.from_plain([1, 2], names) == ClassList((1, 2))
    assert ClassList.from_plain([1, 2], ["a", "b"]) == ClassList((1, 2), ("a", "b"))
