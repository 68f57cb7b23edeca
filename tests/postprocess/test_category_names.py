"""Names of categories: where they come from, and what they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.annotations.categories import IMATERIALIST_2019_LABELS, Category, LabelDescriptions
from src.annotations.imaterialist_csv import is_competition
from src.errors import InputError
from src.postprocess.category_names import CategoryNames, names_for
from src.postprocess.settings import named_settings
from src.predictions.store import PredictionStore
from tests.helpers.candidates import DEFAULT
from tests.helpers.stores import make_writer

KNOWN = IMATERIALIST_2019_LABELS.category_names


def open_store(folder: Path, **changes: object) -> PredictionStore:
    make_writer(folder, **changes).close()
    return PredictionStore(folder)


def test_the_truths_names_come_first_then_the_stores_then_the_competitions(tmp_path: Path) -> None:
    store = open_store(
        tmp_path / "named",
        category_ids=[23, 2],
        settings={"class_names": ["a", "b"]},
    )
    ground_truth = LabelDescriptions((Category(2, "c", ""), Category(23, "d", "")))
    assert names_for(store, ground_truth, "t.json") == CategoryNames({2: "c", 23: "d"}, "t.json")
    own = names_for(store, None, "")
    assert (own.names, own.source) == ({2: "b", 23: "a"}, str(tmp_path / "named"))
    assert not own.is_competition
    bare = names_for(open_store(tmp_path / "bare", category_ids=[23, 2]), None, "")
    assert bare.names == {2: KNOWN[2], 23: "shoe"}
    assert bare.is_competition
    for other in ([1, 5, 9], [23, 90]):  # without the filler's category, or beyond the 46
        unknown = names_for(open_store(tmp_path / f"{other}", category_ids=other), None, "")
        assert unknown.names == {}


@pytest.mark.parametrize("names", ["text", ["b"], None])
def test_damaged_names_are_none(tmp_path: Path, names: object) -> None:
    store = open_store(tmp_path / "s", category_ids=[60, 2], settings={"class_names": names})
    assert names_for(store, None, "").names == {}


def test_whose_categories_are_the_competitions() -> None:
    assert is_competition(KNOWN)
    assert is_competition({1: "whatever", 23: " Shoe"})
    assert not is_competition({23: "bear"})
    assert not is_competition({1: KNOWN[1]})
    assert not is_competition({23: "shoe", 46: "more"})


def test_names_become_ids() -> None:
    names = CategoryNames(KNOWN, "iMaterialist")
    values = DEFAULT | {
        "remove_categories": ["shirt, blouse", 3, "4", "SHOE "],
        "score_threshold_per_class": {"shoe": 0.5, "31": 0.25, 4: 1},
        "mask_threshold_per_class": {"tie": 0.5},
    }
    settings = named_settings(values, names)
    assert sorted(settings.remove_categories) == [0, 3, 4, 23]
    assert settings.score_threshold_per_class == {23: 0.5, 31: 0.25, 4: 1.0}
    assert settings.mask_threshold_per_class == {16: 0.5}
    assert values["remove_categories"] == ["shirt, blouse", 3, "4", "SHOE "]


def test_an_exact_name_wins_and_an_ambiguous_one_is_refused() -> None:
    names = CategoryNames({1: "A", 2: "a", 3: "b", 4: "b"}, "t.json")
    assert named_settings(DEFAULT | {"remove_categories": ["a"]}, names).remove_categories == [2]
    for name in (" A", "b"):
        with pytest.raises(InputError, match=r"must name one category, got .*; give the id"):
            named_settings(DEFAULT | {"remove_categories": [name]}, names)


def test_a_name_from_a_file_is_shown_as_text() -> None:
    names = CategoryNames({1: "\x1b[31mred"}, "t.json")
    with pytest.raises(InputError, match=r"near ones: 1 \\x1b\[31mred"):
        named_settings(DEFAULT | {"remove_categories": ["red"]}, names)
