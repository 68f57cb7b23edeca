"""The label set, and reading and writing of label files."""

from __future__ import annotations

import csv
import json

import pytest

from src.annotations.categories import (
    CATEGORY_INSTANCES,
    IMATERIALIST_2019_CATEGORIES,
    IMATERIALIST_2019_LABELS,
    Attribute,
    Category,
    LabelDescriptions,
    read_label_descriptions,
    write_label_descriptions,
)
from src.errors import InputError
from tests.helpers.real_data import real_data


def test_label_set_of_2019():
    assert [category.id for category in IMATERIALIST_2019_CATEGORIES] == list(range(46))
    attributes = IMATERIALIST_2019_LABELS.attributes
    assert [attribute.id for attribute in attributes] == list(range(92))
    assert IMATERIALIST_2019_CATEGORIES[0] == Category(0, "shirt, blouse", "upperbody")
    assert IMATERIALIST_2019_CATEGORIES[23].name == "shoe"
    assert IMATERIALIST_2019_CATEGORIES[45] == Category(45, "tassel", "decorations")
    assert attributes[77] == Attribute(77, "leopard", "animal")
    assert attributes[83] == Attribute(83, "toile de jouy", "textile pattern")
    assert attributes[91].name == "no waistline"
    assert CATEGORY_INSTANCES[31] == 59452
    assert CATEGORY_INSTANCES[20] == 112
    assert sorted(CATEGORY_INSTANCES) == list(range(46))


def test_label_set_is_the_competitions():
    labels = read_label_descriptions(real_data("label_descriptions.json"))
    assert labels == IMATERIALIST_2019_LABELS
    with real_data("category_counts.csv").open(newline="") as file:
        counts = {int(row["category_id"]): int(row["instances"]) for row in csv.DictReader(file)}
    assert counts == CATEGORY_INSTANCES


def test_label_file_comes_back_equal(tmp_path):
    labels = LabelDescriptions(
        categories=(Category(3, "Mütze, Hut", ""), Category(7, 'a "b"', "head")),
        attributes=(Attribute(0, "rot", "colour"), Attribute(300, "grün", "colour")),
    )
    write_label_descriptions(labels, tmp_path / "labels.json")
    assert read_label_descriptions(tmp_path / "labels.json") == labels
    assert labels.category_ids == (3, 7)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", r"labels.json: damaged or no JSON"),
        ("[1]", r"categories must be a list .*labels.json"),
        ({"categories": {}}, r"categories must be a list .*labels.json"),
        ({"categories": []}, r"categories must hold at least one category"),
        ({"categories": [5]}, r"categories\[0\] must be an object with id and name, got 5"),
        (
            {"categories": [{"id": "1", "name": "a"}]},
            r"categories\[0\]: id must be a whole number from 0 to 32767, got '1'",
        ),
        ({"categories": [{"id": True, "name": "a"}]}, r"id must be a whole number .* got True"),
        ({"categories": [{"id": 40000, "name": "a"}]}, r"from 0 to 32767, got 40000"),
        ({"categories": [{"id": 1}]}, r"categories\[0\]: name must be a text, got None"),
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            r"categories\[1\]: id must differ from that of 'a', got 1",
        ),
        (
            {"categories": [{"id": 1, "name": "a"}], "attributes": {"id": 1}},
            r"attributes must be a list, got {",
        ),
    ],
)
def test_bad_label_files(tmp_path, content, message):
    path = tmp_path / "labels.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_label_descriptions(path)


def test_unreadable_label_files(tmp_path):
    with pytest.raises(InputError, match=r"gone.json: no such file"):
        read_label_descriptions(tmp_path / "gone.json")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe4"}')
    with pytest.raises(InputError, match=r"latin.json: damaged or no JSON"):
        read_label_descriptions(tmp_path / "latin.json")
